//! What became of a component's direct effect D when the component was replaced and everything behind it computed again.

/// A verdict, by T, D and their ratio r = T / D. ε is 5 % of the largest |D| in the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// |D| < ε and |T| < ε: nothing at this position.
    #[default]
    Silent,
    /// |D| < ε ≤ |T|: it acts through others.
    Indirect,
    /// 0.5 ≤ r ≤ 1.5.
    Confirmed,
    /// r > 1.5.
    Amplified,
    /// 0.2 ≤ r < 0.5.
    Partial,
    /// r < −0.2.
    Reversed,
    /// Taken back, most of it by writes that opposed D in the clean run and now oppose less.
    Erased,
    /// Taken back, most of it by writes that rose in the component's place.
    Repaired,
}

/// Of the largest |D| in the row.
const EPSILON: f64 = 0.05;

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 8] = [
        Verdict::Silent,
        Verdict::Indirect,
        Verdict::Confirmed,
        Verdict::Amplified,
        Verdict::Partial,
        Verdict::Reversed,
        Verdict::Erased,
        Verdict::Repaired,
    ];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Silent => "silent",
            Verdict::Indirect => "indirect",
            Verdict::Confirmed => "confirmed",
            Verdict::Amplified => "amplified",
            Verdict::Partial => "partial",
            Verdict::Reversed => "reversed",
            Verdict::Erased => "erased",
            Verdict::Repaired => "repaired",
        }
    }
}

/// The verdict on D and T; `clean` are the attributions of the row and `mediators` M_j, component by component. An
/// attribution within `rounding` of 0 opposes nothing.
pub(super) fn of([direct, total]: [f64; 2], largest: f64, clean: &[f32], mediators: &[f64], rounding: f64) -> Verdict {
    let epsilon = EPSILON * largest;
    // what is lost in rounding is nothing, also where nothing else is larger
    let is_small = |effect: f64| effect.abs() < epsilon || effect.abs() <= rounding;
    if is_small(direct) {
        return if is_small(total) { Verdict::Silent } else { Verdict::Indirect };
    }
    match total / direct {
        r if r > 1.5 => Verdict::Amplified,
        r if r >= 0.5 => Verdict::Confirmed,
        r if r >= 0.2 => Verdict::Partial,
        r if r < -0.2 => Verdict::Reversed,
        _ => taken_back(direct, clean, mediators, rounding),
    }
}

fn taken_back(direct: f64, clean: &[f32], mediators: &[f64], rounding: f64) -> Verdict {
    let compensating = || mediators.iter().zip(clean).filter(|(m, _)| **m * direct < 0.0);
    let all: f64 = compensating().map(|(m, _)| m.abs()).sum();
    let opposes = |c: f64| c * direct < 0.0 && c.abs() > rounding;
    let opposed: f64 = compensating().filter(|(_, c)| opposes(f64::from(**c))).map(|(m, _)| m.abs()).sum();
    if opposed > all / 2.0 { Verdict::Erased } else { Verdict::Repaired }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_by_ratio_and_size() {
        let verdict = |direct, total| of([direct, total], 10.0, &[], &[], 0.0);
        for (direct, total, expected) in [
            (0.49, -0.49, Verdict::Silent),
            (0.0, 0.0, Verdict::Silent),
            (0.49, 0.5, Verdict::Indirect),
            (2.0, 1.0, Verdict::Confirmed),
            (-2.0, -3.0, Verdict::Confirmed),
            (2.0, 3.1, Verdict::Amplified),
            (2.0, 0.4, Verdict::Partial),
            (2.0, 0.99, Verdict::Partial),
            (2.0, -0.41, Verdict::Reversed),
            (2.0, -0.39, Verdict::Repaired), // nothing compensates, so nothing opposed
        ] {
            assert_eq!(verdict(direct, total), expected, "{direct} {total}");
        }
        assert_eq!(of([0.0, 0.0], 0.0, &[], &[], 0.0), Verdict::Silent); // a row where nothing happens
    }

    #[test]
    fn what_is_taken_back_was_opposed_or_is_replaced() {
        // D = 4 and T near 0: who compensates is negative; the first two opposed D, the third supported it
        let clean = [-3.0, -1.0, 2.0, 5.0];
        assert_eq!(of([4.0, 0.1], 4.0, &clean, &[-2.5, 0.5, -1.5, 0.0], 0.0), Verdict::Erased);
        assert_eq!(of([4.0, 0.1], 4.0, &clean, &[-1.5, 0.0, -2.5, 1.0], 0.0), Verdict::Repaired);
        // a clean write of next to nothing opposed nothing
        assert_eq!(of([4.0, 0.1], 4.0, &[-1e-6], &[-4.0], 1e-5), Verdict::Repaired);
        // the other sign
        let opposite = clean.map(|c| -c);
        assert_eq!(of([-4.0, 0.1], 4.0, &opposite, &[2.5, 0.0, 1.5, 0.0], 0.0), Verdict::Erased);
    }
}
