//! Where heads look. A pattern is named only where its name says something: for every query the keys that a name
//! predicts, and how much of the head's attention they get.
//!
//! ```text
//! score = mean over queries of Σ_{k ∈ S(q)} A[q, k]        null = mean over the same queries of |S(q)| / |allowed(q)|
//! strength = (score − null) / (1 − null)                   1: always there; 0: as a head that looks everywhere alike
//! ```
//!
//! A query counts for a name only if its keys S(q) are keys of no other name as well: not where the mask leaves little
//! choice (the first rows), nor where repeated tokens make two names coincide. So a head that rests on the first token
//! gets no credit for it under another name.

use crate::attribution::sources::Heads;
use crate::cancel::Cancel;
use crate::chunk::{Chunk, Prompted};
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::memory;
use crate::model::Transformer;
use crate::run::{Job, Place, Work, over_chunks};
use std::collections::{BTreeMap, BTreeSet};

/// Patterns of some heads on some prompts.
pub struct Patterns {
    /// Token ids.
    pub prompts: Vec<Vec<u32>>,
    /// The heads, (layer, head) rising.
    pub heads: Heads,
    /// Per prompt [heads, query_pos, key_pos], row-major.
    values: Vec<Vec<f32>>,
}

/// Runs prompts and keeps the patterns of these heads.
///
/// # Errors
/// `MEMORY` before anything is run, `ABORTED`, and those of the forward pass.
pub fn observe(
    place: &Place,
    prompts: Vec<Vec<u32>>,
    heads: Heads,
    chunk_tokens: usize,
    job: &Job,
) -> Result<Patterns> {
    let layers: BTreeSet<usize> = heads.iter().map(|(l, _)| *l).collect();
    let points: BTreeSet<HookPoint> = layers.iter().map(|l| HookPoint::Block(*l, BlockPoint::Pattern)).collect();
    let all = |ids: Vec<u32>| Prompted::new(&ids[..], (0..ids.len()).collect());
    let prompts: Vec<Prompted> = prompts.into_iter().map(all).collect();
    let config = &place.model.config;
    let kept = |p: &Prompted| 4 * (heads.len() * p.ids.len() * p.ids.len()) as u64;
    let seen = |p: &Prompted| memory::observed(config, &points, p.ids.len(), p.ids.len());
    let work = Work {
        prompts: &prompts,
        chunk_tokens,
        purpose: "the attention patterns",
        result_bytes: prompts.iter().map(kept).sum(),
        is_merged: false,
        chunk_bytes: &|chunk| chunk.iter().map(seen).sum(),
    };
    let parts = over_chunks(place, &work, job, |chunk| of_chunk(place.model, chunk, &points, &heads, job.cancel))?;
    let values = parts.into_iter().flatten().collect();
    Ok(Patterns { prompts: prompts.into_iter().map(|p| p.ids).collect(), heads, values })
}

fn of_chunk(
    model: &Transformer,
    chunk: Chunk,
    points: &BTreeSet<HookPoint>,
    heads: &Heads,
    cancel: &Cancel,
) -> Result<Vec<Vec<f32>>> {
    let missing = || PrismError::Internal { place: "attention".into(), problem: "no pattern was kept".into() };
    let observed = chunk.forward(model, points.clone(), BTreeSet::new(), cancel)?.ok_or_else(missing)?;
    let of_prompt = |segment: usize| {
        let mut values = Vec::new();
        for (l, h) in heads {
            let point = HookPoint::Block(*l, BlockPoint::Pattern);
            let pattern = observed.activations.square(point, segment).ok_or_else(missing)?;
            // a head alone is a view: read from a GPU, it would bring all the others along
            values.extend(pattern.get(*h)?.force_contiguous()?.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(values)
    };
    (0..chunk.prompts.len()).map(of_prompt).collect()
}

impl Patterns {
    /// Patterns that are already there: per prompt [heads, query_pos, key_pos], row-major.
    pub fn of(prompts: Vec<Vec<u32>>, heads: Heads, values: Vec<Vec<f32>>) -> Self {
        Patterns { prompts, heads, values }
    }

    /// The pattern of head number `head` (in the order of `heads`) on a prompt: [query_pos, key_pos], row-major.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where there is no such head or prompt.
    pub fn pattern(&self, head: usize, prompt: usize) -> Result<&[f32]> {
        let n = self.prompts.len();
        let Some(ids) = self.prompts.get(prompt) else {
            return Err(PrismError::argument("prompt", prompt, format!("one of {n} prompts, from 0")));
        };
        let size = ids.len() * ids.len();
        let range = head * size..(head + 1) * size;
        let missing =
            || PrismError::argument("head", head, format!("one of {} heads that were kept", self.heads.len()));
        self.values[prompt].get(range).ok_or_else(missing)
    }
}

/// A name for where a head looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The position before the query.
    PreviousToken,
    /// The query's own position.
    Own,
    /// Position 0.
    First,
    /// The positions of one token or one class of tokens, wherever they are.
    Column,
    /// The position behind an earlier occurrence of the query's token.
    Induction,
    /// An earlier occurrence of the query's token.
    DuplicateToken,
    /// All positions alike.
    Uniform,
}

impl Kind {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Kind::PreviousToken => "previousToken",
            Kind::Own => "self",
            Kind::First => "first",
            Kind::Column => "column",
            Kind::Induction => "induction",
            Kind::DuplicateToken => "duplicateToken",
            Kind::Uniform => "uniform",
        }
    }
}

/// How well a name fits a head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Attention on the keys that the name predicts; for `Uniform` the entropy over the logarithm of what the mask allows.
    pub score: f64,
    /// What a head that looks everywhere alike would get on the same queries.
    pub null: f64,
    /// (score − null) / (1 − null); for `Uniform` the score.
    pub strength: f64,
    /// How many queries counted; without any, the other figures are NaN.
    pub queries: usize,
}

/// What a column is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// One token.
    Token(u32),
    /// A class of tokens, by its name.
    Class(String),
}

/// Every name's score for one head, and the one that fits best.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadPattern {
    /// Layer and head.
    pub head: (usize, usize),
    /// Every name's score; the column is the best one.
    pub scores: BTreeMap<Kind, Score>,
    /// What the best column is of.
    pub column: Option<Column>,
    /// The name that fits; `None` where none does clearly.
    pub best: Option<Kind>,
    /// By how much the strength of the best name exceeds the next one's.
    pub margin: f64,
}

/// A name needs this much strength,
pub const MIN_STRENGTH: f64 = 0.4;
/// and this much more than the next.
pub const MIN_MARGIN: f64 = 0.1;
/// A uniform head has at least this share of the largest entropy.
pub const MIN_ENTROPY: f64 = 0.95;
/// A column is a statement about a token only if this many queries could have looked elsewhere.
const MIN_COLUMN_QUERIES: usize = 4;

/// Names for where every head looks. `windows` holds a layer's sliding window, `classes` tokens that belong together.
///
/// # Errors
/// `INTERNAL`.
pub fn classify(
    patterns: &Patterns,
    windows: &[Option<usize>],
    classes: &BTreeMap<String, BTreeSet<u32>>,
) -> Result<Vec<HeadPattern>> {
    let mut predictions = BTreeMap::<Option<usize>, Predictions>::new();
    let mut named = Vec::with_capacity(patterns.heads.len());
    for (i, head) in patterns.heads.iter().enumerate() {
        let window = windows[head.0];
        let predicted =
            predictions.entry(window).or_insert_with(|| Predictions::of(&patterns.prompts, window, classes));
        named.push(predicted.head(*head, i, patterns)?);
    }
    Ok(named)
}

/// One query of one prompt and the keys that a name predicts for it.
struct Predicted {
    prompt: usize,
    query: usize,
    keys: Vec<usize>,
    /// Keys that the mask allows.
    allowed: usize,
}

/// For every name the queries that count for it.
struct Predictions {
    window: Option<usize>,
    fixed: BTreeMap<Kind, Vec<Predicted>>,
    columns: BTreeMap<Column, Vec<Predicted>>,
}

impl Predictions {
    fn of(prompts: &[Vec<u32>], window: Option<usize>, classes: &BTreeMap<String, BTreeSet<u32>>) -> Self {
        let mut predictions = Predictions { window, fixed: BTreeMap::new(), columns: BTreeMap::new() };
        for (prompt, ids) in prompts.iter().enumerate() {
            for query in 1..ids.len() {
                predictions.add(prompt, ids, query, classes);
            }
        }
        predictions
    }

    fn add(&mut self, prompt: usize, ids: &[u32], query: usize, classes: &BTreeMap<String, BTreeSet<u32>>) {
        let q = Query { ids, query, from: self.window.map_or(0, |w| (query + 1).saturating_sub(w)) };
        let allowed = query + 1 - q.from;
        let predicted = |keys: Vec<usize>| Predicted { prompt, query, keys, allowed };
        for kind in [Kind::PreviousToken, Kind::Own, Kind::First, Kind::Induction, Kind::DuplicateToken] {
            let keys = q.keys(kind);
            if q.counts(kind, &keys) {
                self.fixed.entry(kind).or_default().push(predicted(keys));
            }
        }
        // a token that stands before the query, but not as its own, the previous or the first one
        let tokens: BTreeSet<u32> =
            ids[q.from.max(1)..query.saturating_sub(1).max(q.from.max(1))].iter().copied().collect();
        for token in tokens {
            self.add_column(Column::Token(token), &q, |t| t == token, &predicted);
        }
        for (name, tokens) in classes {
            self.add_column(Column::Class(name.clone()), &q, |t| tokens.contains(&t), &predicted);
        }
    }

    fn add_column(
        &mut self,
        column: Column,
        q: &Query,
        of: impl Fn(u32) -> bool,
        predicted: &impl Fn(Vec<usize>) -> Predicted,
    ) {
        let keys: Vec<usize> = (q.from.max(1)..q.query.saturating_sub(1)).filter(|k| of(q.ids[*k])).collect();
        if q.counts(Kind::Column, &keys) && !of(q.ids[q.query]) && !of(q.ids[q.query - 1]) {
            self.columns.entry(column).or_default().push(predicted(keys));
        }
    }

    fn head(&self, head: (usize, usize), i: usize, patterns: &Patterns) -> Result<HeadPattern> {
        let (mut scores, mut rests) = (BTreeMap::new(), BTreeMap::new());
        for kind in [Kind::PreviousToken, Kind::Own, Kind::First, Kind::Induction, Kind::DuplicateToken] {
            let queries = self.fixed.get(&kind).map_or(&[][..], |list| list);
            scores.insert(kind, score(queries, i, patterns)?);
            rests.insert(kind, rest(queries, i, patterns)?);
        }
        let mut best_column: Option<(Column, Score)> = None;
        for (column, queries) in &self.columns {
            if queries.len() < MIN_COLUMN_QUERIES {
                continue;
            }
            let score = score(queries, i, patterns)?;
            if best_column.as_ref().is_none_or(|(_, best)| score.strength > best.strength) {
                best_column = Some((column.clone(), score));
                rests.insert(Kind::Column, rest(queries, i, patterns)?);
            }
        }
        let (column, of_column) = best_column.unzip();
        scores.insert(Kind::Column, of_column.unwrap_or(NOTHING));
        scores.insert(Kind::Uniform, self.uniformity(i, patterns)?);
        let (best, margin) = best(&scores, &rests);
        Ok(HeadPattern { head, scores, column, best, margin })
    }

    /// Mean over queries of the entropy of the row, over the logarithm of the keys that the mask allows.
    fn uniformity(&self, i: usize, patterns: &Patterns) -> Result<Score> {
        let (mut sum, mut queries) = (0.0, 0);
        for (prompt, ids) in patterns.prompts.iter().enumerate() {
            let pattern = patterns.pattern(i, prompt)?;
            for (query, row) in pattern.chunks_exact(ids.len()).enumerate().skip(1) {
                let allowed = self.window.map_or(query + 1, |w| w.min(query + 1));
                let total: f64 = row.iter().map(|a| f64::from(*a)).sum();
                if allowed < 2 || total <= 0.0 {
                    continue;
                }
                let term = |a: f64| if a > 0.0 { -a * a.ln() } else { 0.0 };
                let entropy: f64 = row.iter().map(|a| term(f64::from(*a) / total)).sum();
                sum += entropy / (allowed as f64).ln();
                queries += 1;
            }
        }
        let score = sum / queries as f64;
        Ok(Score { score, null: 1.0, strength: score, queries })
    }
}

/// A query of a prompt.
struct Query<'a> {
    ids: &'a [u32],
    query: usize,
    /// The first key that the mask allows.
    from: usize,
}

impl Query<'_> {
    /// The keys that a name predicts, of those that the mask allows.
    fn keys(&self, kind: Kind) -> Vec<usize> {
        let (ids, q) = (self.ids, self.query);
        let keys: Vec<usize> = match kind {
            Kind::PreviousToken => vec![q - 1],
            Kind::Own => vec![q],
            Kind::First => vec![0],
            Kind::Induction => (1..=q).filter(|k| ids[k - 1] == ids[q]).collect(),
            Kind::DuplicateToken => (0..q).filter(|k| ids[*k] == ids[q]).collect(),
            Kind::Column | Kind::Uniform => Vec::new(),
        };
        keys.into_iter().filter(|k| *k >= self.from).collect()
    }

    /// Whether the query says something about a name: it predicts keys, the mask leaves others, and no key of it is also
    /// what another name predicts.
    fn counts(&self, kind: Kind, keys: &[usize]) -> bool {
        let others = [Kind::PreviousToken, Kind::Own, Kind::First, Kind::Induction, Kind::DuplicateToken];
        let elsewhere = |k: &usize| others.iter().any(|other| *other != kind && self.keys(*other).contains(k));
        !keys.is_empty() && keys.len() < self.query + 1 - self.from && !keys.iter().any(elsewhere)
    }
}

const NOTHING: Score = Score { score: f64::NAN, null: f64::NAN, strength: f64::NAN, queries: 0 };

fn score(queries: &[Predicted], head: usize, patterns: &Patterns) -> Result<Score> {
    if queries.is_empty() {
        return Ok(NOTHING);
    }
    let (mut sum, mut null) = (0.0, 0.0);
    for Predicted { prompt, query, keys, allowed } in queries {
        let length = patterns.prompts[*prompt].len();
        let row = &patterns.pattern(head, *prompt)?[query * length..(query + 1) * length];
        sum += keys.iter().map(|k| f64::from(row[*k])).sum::<f64>();
        null += keys.len() as f64 / *allowed as f64;
    }
    let n = queries.len() as f64;
    let (score, null) = (sum / n, null / n);
    Ok(Score { score, null, strength: (score - null) / (1.0 - null), queries: queries.len() })
}

/// The attention on the first position at the queries that count for a name: a head that has nothing to do there rests on
/// it, and what it does elsewhere is no rival of the name.
fn rest(queries: &[Predicted], head: usize, patterns: &Patterns) -> Result<f64> {
    let mut sum = 0.0;
    for Predicted { prompt, query, .. } in queries {
        let length = patterns.prompts[*prompt].len();
        sum += f64::from(patterns.pattern(head, *prompt)?[query * length]);
    }
    Ok(sum / queries.len().max(1) as f64)
}

/// The name of largest strength, where it is strong and alone; else `First` where that is; else `Uniform` where the rows are
/// flat; and the distance to the next. The first position is a rival of another name only at that name's own queries.
fn best(scores: &BTreeMap<Kind, Score>, rests: &BTreeMap<Kind, f64>) -> (Option<Kind>, f64) {
    let strength = |kind: Kind| scores.get(&kind).filter(|score| score.queries > 0).map(|score| score.strength);
    let others = [Kind::PreviousToken, Kind::Own, Kind::Column, Kind::Induction, Kind::DuplicateToken];
    let mut named: Vec<(Kind, f64)> = others.iter().filter_map(|kind| Some((*kind, strength(*kind)?))).collect();
    named.sort_by(|a, b| b.1.total_cmp(&a.1));
    let second = named.get(1).map_or(0.0, |(_, second)| second.max(0.0));
    let top =
        named.first().map(|(kind, first)| (*kind, *first, first - second.max(rests.get(kind).copied().unwrap_or(0.0))));
    if let Some((kind, first, margin)) = top
        && first >= MIN_STRENGTH
        && margin >= MIN_MARGIN
    {
        return (Some(kind), margin);
    }
    let (rival, first) = (top.map_or(0.0, |(_, rival, _)| rival.max(0.0)), strength(Kind::First).unwrap_or(0.0));
    let margin = if first > rival { first - rival } else { top.map_or(0.0, |(_, _, margin)| margin.max(0.0)) };
    if first >= MIN_STRENGTH && first - rival >= MIN_MARGIN {
        return (Some(Kind::First), margin);
    }
    let flat = scores.get(&Kind::Uniform).is_some_and(|u| u.queries > 0 && u.score >= MIN_ENTROPY);
    let is_flat = flat && first < MIN_STRENGTH && rival < MIN_STRENGTH;
    (is_flat.then_some(Kind::Uniform), margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patterns of one head on prompts: `look` gives the keys of a query, which share its attention.
    fn head(prompts: &[&[u32]], look: impl Fn(&[u32], usize) -> Vec<usize>) -> Patterns {
        let values = prompts.iter().map(|ids| {
            let n = ids.len();
            let mut pattern = vec![0.0; n * n];
            for q in 0..n {
                let keys = look(ids, q);
                keys.iter().for_each(|k| pattern[q * n + k] += 1.0 / keys.len() as f32);
            }
            pattern
        });
        let values = values.collect();
        Patterns::of(prompts.iter().map(|p| p.to_vec()).collect(), vec![(0, 0)], values)
    }

    fn named(patterns: &Patterns) -> HeadPattern {
        classify(patterns, &[None], &BTreeMap::new()).unwrap().remove(0)
    }

    /// No token stands twice.
    const DISTINCT: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
    /// Six tokens, twice.
    const REPEATED: [u32; 12] = [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6];

    fn all(_: &[u32], q: usize) -> Vec<usize> {
        (0..=q).collect()
    }

    fn induction(ids: &[u32], q: usize) -> Vec<usize> {
        let keys: Vec<usize> = (1..=q).filter(|k| ids[k - 1] == ids[q]).collect();
        if keys.is_empty() { vec![0] } else { keys }
    }

    #[test]
    fn a_previous_token_head() {
        let found = named(&head(&[&DISTINCT, &REPEATED], |_, q| vec![q.saturating_sub(1)]));
        assert_eq!(found.best, Some(Kind::PreviousToken));
        let score = found.scores[&Kind::PreviousToken];
        assert_eq!((score.score, score.strength), (1.0, 1.0));
        // the first rows have little choice: query 1 does not count, of 7 and 11
        assert_eq!(score.queries, 6 + 10);
        assert!(found.margin > 0.9);
    }

    #[test]
    fn heads_on_themselves_and_on_the_first_token() {
        assert_eq!(named(&head(&[&DISTINCT], |_, q| vec![q])).best, Some(Kind::Own));
        let found = named(&head(&[&DISTINCT], |_, _| vec![0]));
        assert_eq!(found.best, Some(Kind::First));
        assert!(found.scores[&Kind::PreviousToken].strength < 0.0); // query 1 alone looks at the one before it
    }

    #[test]
    fn an_induction_head_rests_on_the_first_token_and_is_not_called_first() {
        let found = named(&head(&[&REPEATED], induction));
        assert_eq!(found.best, Some(Kind::Induction));
        assert_eq!(found.scores[&Kind::Induction].score, 1.0);
        // queries 6 to 11 have an earlier occurrence; that of query 11 lies at 5, so its key is 6
        assert_eq!(found.scores[&Kind::Induction].queries, 6);
    }

    #[test]
    fn a_head_that_rests_on_the_first_token_most_of_the_time_is_named_by_what_it_does() {
        // twenty tokens of which two stand twice: two queries of twenty-one have something to look for
        let ids: Vec<u32> = (0..20).chain([5, 9]).collect();
        let found = named(&head(&[&ids], induction));
        assert!(found.scores[&Kind::First].strength > 0.8);
        assert_eq!((found.best, found.scores[&Kind::Induction].queries), (Some(Kind::Induction), 2));
        // one that looks at the first token there, too, is one on the first token
        assert_eq!(named(&head(&[&ids], |_, _| vec![0])).best, Some(Kind::First));
    }

    #[test]
    fn nothing_is_called_induction_without_a_repeated_token() {
        let found = named(&head(&[&DISTINCT], induction));
        assert_eq!(found.scores[&Kind::Induction].queries, 0);
        assert!(found.scores[&Kind::Induction].score.is_nan());
        assert_ne!(found.best, Some(Kind::Induction));
    }

    #[test]
    fn a_duplicate_token_head_is_not_an_induction_head() {
        let look = |ids: &[u32], q: usize| {
            let keys: Vec<usize> = (0..q).filter(|k| ids[*k] == ids[q]).collect();
            if keys.is_empty() { vec![0] } else { keys }
        };
        let found = named(&head(&[&REPEATED], look));
        assert_eq!(found.best, Some(Kind::DuplicateToken));
        assert!(found.scores[&Kind::Induction].strength < 0.1);
    }

    #[test]
    fn repeated_tokens_that_make_two_names_coincide_count_for_neither() {
        // 5 5 5 …: the previous token is an earlier occurrence, and the token behind one is the query itself
        let found = named(&head(&[&[5; 9]], |_, q| vec![q.saturating_sub(1)]));
        for kind in [Kind::PreviousToken, Kind::DuplicateToken, Kind::Induction] {
            assert_eq!(found.scores[&kind].queries, 0, "{kind:?}");
        }
        assert_eq!(found.best, None);
    }

    #[test]
    fn a_head_that_looks_at_full_stops() {
        let stop = 99;
        let ids = [1, 2, stop, 3, 4, 5, 6, stop, 7, 8, 9, 10, 11];
        let look = |ids: &[u32], q: usize| {
            let keys: Vec<usize> = (0..=q).filter(|k| ids[*k] == stop).collect();
            if keys.is_empty() { vec![0] } else { keys }
        };
        let found = named(&head(&[&ids], look));
        assert_eq!((found.best, found.column), (Some(Kind::Column), Some(Column::Token(stop))));
        let classes = BTreeMap::from([("punctuation".to_string(), BTreeSet::from([stop, 98]))]);
        let look = |ids: &[u32], q: usize| {
            let keys: Vec<usize> = (0..=q).filter(|k| ids[*k] >= 98).collect();
            if keys.is_empty() { vec![0] } else { keys }
        };
        let ids = [1, 2, stop, 3, 4, 5, 6, 98, 7, 8, 9, 10, 11];
        let found = classify(&head(&[&ids], look), &[None], &classes).unwrap().remove(0);
        assert_eq!(found.column, Some(Column::Class("punctuation".into())));
    }

    #[test]
    fn a_flat_head_is_uniform_and_gets_the_null_everywhere() {
        let found = named(&head(&[&DISTINCT, &REPEATED], all));
        assert_eq!(found.best, Some(Kind::Uniform));
        for (kind, score) in &found.scores {
            if *kind != Kind::Uniform {
                assert!((score.score - score.null).abs() < 1e-6 && score.strength.abs() < 1e-6, "{kind:?} {score:?}");
            }
        }
        assert!((found.scores[&Kind::Uniform].score - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_head_between_two_names_is_mixed() {
        let found = named(&head(&[&DISTINCT], |_, q| vec![q, q.saturating_sub(1)]));
        assert_eq!(found.best, None);
        assert!(found.margin < MIN_MARGIN);
    }

    #[test]
    fn the_window_of_a_layer_is_what_its_mask_allows() {
        let patterns = head(&[&DISTINCT], |_, q| (q.saturating_sub(2)..=q).collect());
        let found = classify(&patterns, &[Some(3)], &BTreeMap::new()).unwrap().remove(0);
        assert_eq!(found.best, Some(Kind::Uniform));
        // position 0 is out of sight from query 3 on; query 1 does not count
        assert_eq!(found.scores[&Kind::First].queries, 1);
    }

    #[test]
    fn patterns_are_found_by_head_and_prompt() {
        let patterns = head(&[&[1, 2], &[3]], all);
        assert_eq!(patterns.pattern(0, 0).unwrap(), [1.0, 0.0, 0.5, 0.5]);
        assert_eq!(patterns.pattern(0, 1).unwrap(), [1.0]);
        assert_eq!(patterns.pattern(1, 0).unwrap_err().code(), "INVALID_ARGUMENT");
        assert_eq!(patterns.pattern(0, 2).unwrap_err().code(), "INVALID_ARGUMENT");
    }
}
