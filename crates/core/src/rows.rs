//! Which positions of which prompts a result is about.

use crate::error::{PrismError, Result};
use std::collections::BTreeSet;

/// A choice of positions. Negative positions count from a prompt's end.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// The last position of every prompt.
    Last,
    /// Every position.
    All,
    /// These positions of every prompt.
    Of(Vec<i64>),
    /// These positions, prompt by prompt.
    PerPrompt(Vec<Vec<i64>>),
}

impl Positions {
    /// The chosen positions of one prompt, rising.
    ///
    /// # Errors
    /// `POSITION_RANGE` where a position is out of range or stands twice, `INVALID_ARGUMENT` where lists and prompts do
    /// not match.
    pub fn of(&self, prompt: usize, length: usize) -> Result<Vec<usize>> {
        match self {
            Positions::Last => Ok(vec![length - 1]),
            Positions::All => Ok((0..length).collect()),
            Positions::Of(list) => resolve(list, prompt, length),
            Positions::PerPrompt(lists) => match lists.get(prompt) {
                Some(list) => resolve(list, prompt, length),
                None => Err(PrismError::argument(
                    "position.perPrompt",
                    format!("{} lists", lists.len()),
                    "one list per prompt",
                )),
            },
        }
    }

    /// That there are as many lists as prompts, where there are lists.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub fn check(&self, n_prompts: usize) -> Result<()> {
        match self {
            Positions::PerPrompt(lists) if lists.len() != n_prompts => Err(PrismError::argument(
                "position.perPrompt",
                format!("{} lists for {n_prompts} prompts", lists.len()),
                "one list per prompt",
            )),
            Positions::Of(list) if list.is_empty() => {
                Err(PrismError::argument("position", "an empty list", "at least one position"))
            }
            _ => Ok(()),
        }
    }
}

fn resolve(list: &[i64], prompt: usize, length: usize) -> Result<Vec<usize>> {
    let mut positions = BTreeSet::new();
    for &position in list {
        let refused = |problem| PrismError::PositionRange { prompt, position, length, problem };
        let from_end = if position < 0 { position.saturating_add(length as i64) } else { position };
        let resolved = usize::try_from(from_end).ok().filter(|p| *p < length).ok_or_else(|| refused("out of range"))?;
        if !positions.insert(resolved) {
            return Err(refused("listed twice"));
        }
    }
    Ok(positions.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_resolve_rising_and_from_the_end() {
        assert_eq!(Positions::Last.of(0, 5).unwrap(), [4]);
        assert_eq!(Positions::All.of(0, 3).unwrap(), [0, 1, 2]);
        assert_eq!(Positions::Of(vec![-1, 0, 2]).of(0, 5).unwrap(), [0, 2, 4]);
        let lists = Positions::PerPrompt(vec![vec![1], vec![], vec![-2, -3]]);
        assert_eq!(lists.of(0, 3).unwrap(), [1]);
        assert_eq!(lists.of(1, 3).unwrap(), [] as [usize; 0]);
        assert_eq!(lists.of(2, 3).unwrap(), [0, 1]);
    }

    #[test]
    fn out_of_range_and_duplicates_are_refused() {
        for (list, problem) in [
            (vec![5], "out of range"),
            (vec![-6], "out of range"),
            (vec![i64::MIN], "out of range"),
            (vec![4, -1], "listed twice"),
        ] {
            let error = Positions::Of(list).of(3, 5).unwrap_err();
            assert_eq!((error.code(), error.details()["problem"].as_str()), ("POSITION_RANGE", Some(problem)));
            assert_eq!(error.details()["prompt"], 3);
        }
        assert_eq!(Positions::PerPrompt(vec![vec![0]]).check(2).unwrap_err().code(), "INVALID_ARGUMENT");
        assert_eq!(Positions::PerPrompt(vec![vec![0]]).of(1, 2).unwrap_err().code(), "INVALID_ARGUMENT");
        assert_eq!(Positions::Of(vec![]).check(2).unwrap_err().code(), "INVALID_ARGUMENT");
        Positions::PerPrompt(vec![vec![0], vec![1]]).check(2).unwrap();
    }
}
