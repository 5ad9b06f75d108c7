//! Prompts that begin alike compute what they have in common once. Attention is causal, so keys and values of a position
//! depend on the tokens up to there alone: a prompt borrows those of its prefix from an earlier prompt of its chunk, and
//! runs only the rest. Every wanted position is among the rest.

use crate::batch::{Past, Segment};
use crate::chunk::Prompted;
use crate::config::ModelConfig;
use crate::ops::frequencies;

/// A shorter prefix is not worth a segment of its own: the borrowed keys are copied in front of the prompt's.
const MIN_SHARED: usize = 16;

/// Tokens of a chunk, borrowed ones counted, in multiples of those that it runs: borrowed keys and values take memory.
pub(crate) const MAX_BORROWED: usize = 16;

/// What a prompt has in common with the earlier prompt of `before` that it shares most with: its index and the length.
pub(crate) fn shared(prompt: &Prompted, before: &[Prompted], config: &ModelConfig) -> Option<(usize, usize)> {
    // the wanted positions are rows of this prompt, and there is at least one
    let last = prompt.positions.first().copied().unwrap_or(prompt.ids.len().saturating_sub(1));
    let last = last.min(prompt.first_edited().unwrap_or(last)); // what lies before an edit is as in any run
    let common = |other: &Prompted| {
        let theirs = &other.ids[..other.first_edited().unwrap_or(other.ids.len())];
        prompt.ids[..last].iter().zip(theirs).take_while(|(a, b)| a == b).count()
    };
    let mut best: Option<(usize, usize)> = None;
    for (i, other) in before.iter().enumerate() {
        let length = if last < MIN_SHARED { 0 } else { common(other) };
        let longer = length >= MIN_SHARED && best.is_none_or(|(_, longest)| length > longest);
        if longer && has_same_angles(config, prompt.ids.len(), other.ids.len()) {
            best = Some((i, length));
        }
    }
    best
}

/// The prompts as segments that borrow what they share.
pub(crate) fn segments(prompts: &[Prompted], config: &ModelConfig) -> Vec<Segment> {
    let of = |(i, prompt): (usize, &Prompted)| match shared(prompt, &prompts[..i], config) {
        None => Segment::prompt(&prompt.ids[..]),
        Some((index, length)) => {
            let past = Some(Past::Segment { index, length });
            Segment { ids: prompt.ids[length..].to_vec(), past, resume: None }
        }
    };
    prompts.iter().enumerate().map(of).collect()
}

/// Some rotary scalings give one position other angles in a longer prompt.
pub(crate) fn has_same_angles(config: &ModelConfig, a: usize, b: usize) -> bool {
    let differ = |l| config.rotary(l).is_some_and(|r| frequencies(r, a) != frequencies(r, b));
    a == b || !(0..config.n_layers).any(differ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;
    use crate::hook::HookPoint;
    use crate::intervene::{Action, Edit};

    fn config(extra: &str) -> ModelConfig {
        let json = format!(
            r#"{{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2,
                "intermediate_size": 8, "vocab_size": 100, "max_position_embeddings": 24{extra}}}"#
        );
        ModelConfig::resolve(RawConfig::parse("config.json", json.as_bytes()).unwrap(), false).unwrap()
    }

    fn prompt(head: usize, tail: &[u32]) -> Prompted {
        let ids: Vec<u32> = (0..head as u32).chain(tail.iter().copied()).collect();
        let positions = vec![ids.len() - 1];
        Prompted::new(ids, positions)
    }

    #[test]
    fn the_longest_prefix_is_borrowed() {
        let prompts = [prompt(16, &[90]), prompt(20, &[91, 92]), prompt(20, &[91, 93]), prompt(15, &[94, 95])];
        let found = |i: usize| shared(&prompts[i], &prompts[..i], &config(""));
        assert_eq!(found(0), None);
        assert_eq!(found(1), Some((0, 16)));
        assert_eq!(found(2), Some((1, 21)));
        assert_eq!(found(3), None); // 15 tokens are too few
        let segments = segments(&prompts, &config(""));
        assert_eq!(segments.iter().map(|s| s.ids.len()).collect::<Vec<_>>(), [17, 6, 1, 17]);
    }

    #[test]
    fn wanted_positions_are_never_borrowed() {
        let mut second = prompt(20, &[91]);
        second.positions = vec![17, 20];
        assert_eq!(shared(&second, &[prompt(20, &[91])], &config("")), Some((0, 17)));
        second.positions = vec![3];
        assert_eq!(shared(&second, &[prompt(20, &[91])], &config("")), None);
        // the same prompt again: all but its last token
        assert_eq!(shared(&prompt(20, &[91]), &[prompt(20, &[91])], &config("")), Some((0, 20)));
    }

    #[test]
    fn only_what_lies_before_an_edit_is_borrowed_or_lent() {
        let edited = |position| {
            let mut prompt = prompt(20, &[91]);
            prompt.edits = vec![Edit {
                point: HookPoint::Embed,
                index: None,
                positions: vec![position, 20],
                action: Action::Zero,
            }];
            prompt
        };
        let found = |prompt: Prompted, before: Prompted| shared(&prompt, &[before], &config(""));
        assert_eq!(found(edited(18), prompt(20, &[92])), Some((0, 18)));
        assert_eq!(found(prompt(20, &[92]), edited(18)), Some((0, 18)));
        assert_eq!(found(edited(19), edited(17)), Some((0, 17)));
        assert_eq!(found(edited(3), prompt(20, &[92])), None);
        assert_eq!(found(prompt(20, &[92]), edited(3)), None);
    }

    #[test]
    fn prompts_with_other_angles_share_nothing() {
        let dynamic = config(r#", "rope_scaling": {"type": "dynamic", "factor": 2.0}"#);
        // beyond the 24 positions of training the angles of every position depend on the length
        let (short, long) = (prompt(20, &[90]), prompt(20, &[91, 92, 93, 94, 95, 96, 97]));
        assert_eq!(shared(&long, std::slice::from_ref(&short), &dynamic), None);
        assert_eq!(shared(&short, std::slice::from_ref(&short), &dynamic), Some((0, 20)));
        assert_eq!(shared(&long, &[short], &config("")), Some((0, 20)));
    }
}
