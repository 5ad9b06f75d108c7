//! Near misses: what somebody may have meant.

/// Of `known`, the at most three names nearest to `name`, best first; none where nothing comes near.
pub fn nearest<S: Into<String>>(name: &str, known: impl IntoIterator<Item = S>) -> Vec<String> {
    let name: String = name.chars().take(80).collect();
    let limit = 1 + name.chars().count() / 3;
    let mut scored: Vec<(usize, String)> = known
        .into_iter()
        .map(Into::into)
        .map(|known: String| (strsim::damerau_levenshtein(&name, &known), known))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    scored.sort();
    scored.into_iter().take(3).map(|(_, known)| known).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_come_first_and_strangers_not_at_all() {
        let known = ["position", "positions", "unit", "norm"];
        assert_eq!(nearest("positon", known), ["position", "positions"]);
        assert_eq!(nearest("nrom", known), ["norm"]);
        assert_eq!(nearest("batchTokens", known), [] as [String; 0]);
        assert_eq!(nearest("a", ["b", "ab", "abc", "a", "c"]), ["a", "ab", "b"]);
    }
}
