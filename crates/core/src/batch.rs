//! What the forward pass takes: segments of prompts, laid out as rows of one matrix. No padding.
//!
//! A plain batch is one segment per prompt, at positions `0..T`, from layer 0. A segment may instead borrow the keys
//! and values of the positions before it (a shared prefix, or an earlier run), and may enter at a later layer with its
//! residual stream given, before a block or in the middle of one (to resume after an intervention).

use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::prefix::has_same_angles;
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// Tokens that are computed together, at consecutive positions of one prompt.
#[derive(Clone)]
pub struct Segment {
    /// Token ids, in order.
    pub ids: Vec<u32>,
    /// What lies at the positions before the first of `ids`; without it they begin at position 0.
    pub past: Option<Past>,
    /// Where the segment enters the model; without it at layer 0, by its embeddings.
    pub resume: Option<Resume>,
}

/// Keys and values of earlier positions that a segment attends to without computing them.
#[derive(Clone)]
pub enum Past {
    /// The first `length` positions of an earlier segment of this batch, with whatever that one borrows itself.
    Segment {
        /// Which segment; smaller than the borrower's own index.
        index: usize,
        /// How many positions, counted from position 0.
        length: usize,
    },
    /// The positions of an earlier run.
    Stored(Arc<KeyValues>),
}

/// Keys as the scores use them and values, per layer: two tensors [pos, n_key_value_heads, d_head].
pub struct KeyValues {
    /// One pair per layer.
    pub layers: Vec<(Tensor, Tensor)>,
    /// How many positions they cover, from position 0.
    pub length: usize,
    /// Tokens of the prompt that they were computed in: some rotary scalings depend on it.
    pub prompt_length: usize,
}

/// Where a segment enters the model, and the residual stream that enters there.
#[derive(Clone)]
pub struct Resume {
    /// The first sublayer to compute.
    pub at: Entry,
    /// [pos, d_model]
    pub stream: Tensor,
}

/// A place where segments enter, in the order of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Which layer; the number of layers for the final norm.
    pub layer: usize,
    /// Behind that layer's attention, which is not computed.
    pub behind_attention: bool,
}

impl Entry {
    /// In front of a layer's block, with its `resid_pre`; behind the last one with the stream that the final norm reads.
    pub fn before(layer: usize) -> Self {
        Entry { layer, behind_attention: false }
    }

    /// Between a layer's attention and its MLP, with its `resid_mid`.
    pub fn behind_attention(layer: usize) -> Self {
        Entry { layer, behind_attention: true }
    }
}

/// Checked segments and their rows. Segments that enter later come later, so the rows that are under way at any layer
/// are the first ones.
pub struct Batch {
    segments: Vec<Segment>,
    rows: Vec<Range<usize>>,
    starts: Vec<usize>,
    prompt_lengths: Vec<usize>,
}

impl Segment {
    /// A whole prompt.
    pub fn prompt(ids: impl Into<Vec<u32>>) -> Self {
        Segment { ids: ids.into(), past: None, resume: None }
    }

    fn entry(&self) -> Entry {
        self.resume.as_ref().map_or(Entry::before(0), |r| r.at)
    }

    /// Segments enter in this order: by their embeddings, then by the stream they bring, sublayer after sublayer.
    fn order(&self) -> (bool, Entry) {
        (self.resume.is_some(), self.entry())
    }

    fn check_resume(&self, config: &ModelConfig) -> Result<()> {
        let Some(Resume { at, stream }) = &self.resume else { return Ok(()) };
        // parallel blocks have no stream between attention and MLP
        let last = if at.behind_attention { config.n_layers - 1 } else { config.n_layers };
        let is_there = at.layer <= last && !(at.behind_attention && config.parallel);
        if is_there && stream.dims() == [self.ids.len(), config.d_model] {
            return Ok(());
        }
        let place = if at.behind_attention { "behind the attention of layer" } else { "into layer" };
        let found = format!("a stream of shape {:?} {place} {}", stream.dims(), at.layer);
        let inside = if config.parallel { ", whose blocks are parallel" } else { "" };
        let expected =
            format!("[{}, {}] into one of {} layers{inside}", self.ids.len(), config.d_model, config.n_layers);
        Err(PrismError::argument("resume", found, expected))
    }

    /// Tokens of the prompt that a segment with its first row at `start` belongs to: one behind stored keys continues
    /// their prompt, of which the end may be left out.
    fn prompt_length(&self, start: usize) -> usize {
        let end = start + self.ids.len();
        match &self.past {
            Some(Past::Stored(stored)) => end.max(stored.prompt_length),
            _ => end,
        }
    }
}

impl Batch {
    /// Lays segments out as rows.
    ///
    /// # Errors
    /// `TOKEN_RANGE`, `PROMPT_EMPTY`, `PROMPT_TOO_LONG`; `INVALID_ARGUMENT` where a segment borrows from one that is
    /// not computed yet, or enters before the one ahead of it.
    pub fn new(segments: Vec<Segment>, config: &ModelConfig) -> Result<Self> {
        let (mut rows, mut starts) = (Vec::<Range<usize>>::new(), Vec::<usize>::new());
        let (mut prompt_lengths, mut checked) = (Vec::new(), None);
        for (i, segment) in segments.iter().enumerate() {
            // where the segment begins, and how long the prompt is whose keys it borrows
            let (start, lender) = match &segment.past {
                None => (0, segment.ids.len()),
                Some(Past::Stored(stored)) => {
                    if checked != Some(Arc::as_ptr(stored)) {
                        stored.check(config)?;
                        checked = Some(Arc::as_ptr(stored));
                    }
                    (stored.length, stored.prompt_length)
                }
                Some(Past::Segment { index, length }) => {
                    let there = if *index < i { starts[*index] + segments[*index].ids.len() } else { 0 };
                    if there == 0 || *length > there {
                        let found = format!("{length} positions of segment {index}");
                        return Err(PrismError::argument("past", found, "positions of an earlier segment"));
                    }
                    (*length, there)
                }
            };
            check_ids(&segment.ids, i, start, config)?;
            let prompt_length = segment.prompt_length(start);
            check_same_angles(config, lender, prompt_length)?;
            segment.check_resume(config)?;
            if i > 0 && segment.order() < segments[i - 1].order() {
                return Err(PrismError::argument(
                    "segments",
                    "an earlier layer after a later one",
                    "layers that never fall",
                ));
            }
            let row = rows.last().map_or(0, |r| r.end);
            rows.push(row..row + segment.ids.len());
            starts.push(start);
            prompt_lengths.push(prompt_length);
        }
        Ok(Batch { segments, rows, starts, prompt_lengths })
    }

    /// One segment per prompt.
    ///
    /// # Errors
    /// `TOKEN_RANGE`, `PROMPT_EMPTY`, `PROMPT_TOO_LONG`.
    pub fn of_prompts<'a>(prompts: impl IntoIterator<Item = &'a [u32]>, config: &ModelConfig) -> Result<Self> {
        Self::new(prompts.into_iter().map(Segment::prompt).collect(), config)
    }

    /// Its segments.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The rows of segment `i`.
    pub fn rows(&self, i: usize) -> Range<usize> {
        self.rows[i].clone()
    }

    /// The segment of a row.
    pub fn segment_of(&self, row: usize) -> usize {
        self.rows.partition_point(|rows| rows.end <= row)
    }

    /// The position of the first row of segment `i`.
    pub fn start(&self, i: usize) -> usize {
        self.starts[i]
    }

    /// Tokens of the prompt that segment `i` belongs to.
    pub fn prompt_length(&self, i: usize) -> usize {
        self.prompt_lengths[i]
    }

    /// How many segments are under way in the attention of layer `l`; they are the first ones.
    pub fn active(&self, l: usize) -> usize {
        self.segments.partition_point(|s| s.entry() <= Entry::before(l))
    }

    /// How many rows are under way in the attention of layer `l`; they are the first ones.
    pub fn rows_under_way(&self, l: usize) -> usize {
        self.active(l).checked_sub(1).map_or(0, |last| self.rows[last].end)
    }

    /// The segments that enter at a place with a stream of their own.
    pub fn entering(&self, at: Entry) -> impl Iterator<Item = (usize, &Tensor)> {
        let segments = self.segments.partition_point(|s| s.order() < (true, at))
            ..self.segments.partition_point(|s| s.order() <= (true, at));
        segments.filter_map(|i| Some((i, &self.segments[i].resume.as_ref()?.stream)))
    }

    /// Whether any segment enters by its embeddings.
    pub fn has_embedded(&self) -> bool {
        self.segments.first().is_some_and(|s| s.resume.is_none())
    }

    /// Ids and positions of the rows that enter by their embeddings.
    pub fn embedded(&self) -> (Vec<u32>, Vec<u32>) {
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for (segment, start) in self.segments.iter().zip(&self.starts).filter(|(s, _)| s.resume.is_none()) {
            ids.extend(&segment.ids);
            positions.extend((*start as u32..).take(segment.ids.len()));
        }
        (ids, positions)
    }
}

impl KeyValues {
    /// That there is a pair for every layer, long enough and of the model's widths.
    fn check(&self, config: &ModelConfig) -> Result<()> {
        let (heads, width) = (config.n_key_value_heads, config.d_head);
        let fits = |t: &Tensor| t.dims3().is_ok_and(|(n, h, e)| n >= self.length && (h, e) == (heads, width));
        if self.layers.len() == config.n_layers && self.layers.iter().all(|(k, v)| fits(k) && fits(v)) {
            return Ok(());
        }
        let expected = format!("{} layers of [{}, {heads}, {width}]", config.n_layers, self.length);
        Err(PrismError::argument("past", format!("{} layers of other shapes", self.layers.len()), expected))
    }
}

/// That keys computed in a prompt of one length are those of a prompt of another: some rotary scalings give the same
/// position other angles in a longer prompt.
fn check_same_angles(config: &ModelConfig, lender: usize, borrower: usize) -> Result<()> {
    if has_same_angles(config, lender, borrower) {
        return Ok(());
    }
    let found = format!("of a prompt of {lender} tokens, for one of {borrower}");
    Err(PrismError::argument(
        "past",
        found,
        "a prompt of the same rotary angles (dynamic NTK and longrope change them)",
    ))
}

/// Ids inside the vocabulary, at least one, and no more than the context takes. `prompt` is for the message.
///
/// # Errors
/// `TOKEN_RANGE`, `PROMPT_EMPTY`, `PROMPT_TOO_LONG`.
pub fn check_ids(ids: &[u32], prompt: usize, start: usize, config: &ModelConfig) -> Result<()> {
    let length = start + ids.len();
    if ids.is_empty() {
        return Err(PrismError::PromptEmpty { prompt });
    }
    if length > config.n_context {
        return Err(PrismError::PromptTooLong { prompt, length, n_context: config.n_context });
    }
    match ids.iter().find(|id| **id as usize >= config.d_vocab) {
        Some(id) => Err(PrismError::TokenRange { id: u64::from(*id), d_vocab: config.d_vocab }),
        None => Ok(()),
    }
}
