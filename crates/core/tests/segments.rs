//! Segments that borrow keys and values, or enter at a later layer, against whole prompts run from the start; and the
//! segments that a batch refuses.

mod common;

use candle_core::{Device, Tensor};
use common::*;
use logit_prism_core::batch::{Batch, Entry, KeyValues, Past, Resume, Segment};
use logit_prism_core::cancel::Cancel;
use logit_prism_core::hook::{BlockPoint, HookPoint};
use logit_prism_core::session::Session;
use logit_prism_core::tap::{Activations, Capture, Tap};
use serde_json::json as object;
use std::sync::Arc;

/// The second reference prompt: 14 tokens.
const IDS: [u32; 14] = [63, 86, 51, 29, 15, 65, 6, 86, 51, 29, 15, 65, 92, 60];
const TOLERANCE: f64 = 1e-5;

fn gpt2() -> Session {
    load(&fixture("gpt2")).unwrap()
}

fn points(point: BlockPoint) -> [HookPoint; 3] {
    [0, 1, 2].map(|l| HookPoint::Block(l, point))
}

/// The final stream at all rows, [rows, 32], and what was captured at `rows`.
fn run(session: &Session, segments: Vec<Segment>, points: &[HookPoint]) -> (Vec<Vec<f64>>, Activations) {
    let batch = Batch::new(segments, &session.transformer.config).unwrap();
    let n = batch.rows(batch.segments().len() - 1).end as u32;
    let capture = Capture { points: points.iter().copied().collect(), rows: (0..n).collect(), ..Capture::default() };
    let cancel = Cancel::default();
    let mut tap = Tap::new(&capture, &cancel);
    let output = session.transformer.forward(&batch, &mut tap).unwrap();
    let stream = flat(&output.stream).chunks(32).map(<[f64]>::to_vec).collect();
    (stream, tap.finish())
}

/// The final stream of a whole prompt.
fn whole(session: &Session, ids: &[u32]) -> Vec<Vec<f64>> {
    run(session, vec![Segment::prompt(ids)], &[]).0
}

/// Streams are of the order of 10, so this is relative.
#[track_caller]
fn same(what: &str, found: &[Vec<f64>], expected: &[Vec<f64>]) {
    close(what, found.concat(), &expected.concat(), TOLERANCE);
}

fn behind(ids: &[u32], index: usize, length: usize) -> Segment {
    Segment { ids: ids.into(), past: Some(Past::Segment { index, length }), resume: None }
}

fn resuming(ids: &[u32], layer: usize, stream: &Tensor) -> Segment {
    Segment { ids: ids.into(), past: None, resume: Some(Resume { at: Entry::before(layer), stream: stream.clone() }) }
}

#[test]
fn two_continuations_share_a_prefix() {
    let session = gpt2();
    let (a, b) = ([&IDS[..6], &[9, 8, 7]].concat(), [&IDS[..6], &[40]].concat());
    let segments = vec![Segment::prompt(&IDS[..6]), behind(&[9, 8, 7], 0, 6), behind(&[40], 0, 6)];
    let (stream, _) = run(&session, segments, &[]);
    same("prefix", &stream[..6], &whole(&session, &IDS[..6]));
    same("first", &stream[6..9], &whole(&session, &a)[6..]);
    same("second", &stream[9..], &whole(&session, &b)[6..]);
}

#[test]
fn a_prefix_may_itself_have_a_prefix() {
    let session = gpt2();
    let segments = vec![Segment::prompt(&IDS[..3]), behind(&IDS[3..7], 0, 3), behind(&IDS[7..], 1, 7)];
    let (stream, _) = run(&session, segments, &[]);
    same("nested", &stream, &whole(&session, &IDS));
}

#[test]
fn less_than_all_of_a_segment_can_be_borrowed() {
    let session = gpt2();
    let expected = whole(&session, &[&IDS[..4], &[1, 2]].concat());
    let segments = vec![Segment::prompt(IDS), behind(&[1, 2], 0, 4)];
    same("4 of 14", &run(&session, segments, &[]).0[14..], &expected[4..]);
    // 2 of 7, though the lender itself begins at position 3
    let segments = vec![Segment::prompt(&IDS[..3]), behind(&IDS[3..7], 0, 3), behind(&[1, 2], 1, 2)];
    let expected = whole(&session, &[&IDS[..2], &[1, 2]].concat());
    same("2 of 7", &run(&session, segments, &[]).0[7..], &expected[2..]);
    // nothing: the segment begins at position 0
    let segments = vec![Segment::prompt(&IDS[..3]), behind(&IDS[..4], 0, 0)];
    same("0 of 3", &run(&session, segments, &[]).0[3..], &whole(&session, &IDS[..4]));
}

#[test]
fn scores_of_a_borrower_cover_the_borrowed_keys() {
    let session = gpt2();
    let point = HookPoint::Block(2, BlockPoint::Pattern);
    let (_, full) = run(&session, vec![Segment::prompt(IDS)], &[point]);
    let (_, split) = run(&session, vec![Segment::prompt(&IDS[..10]), behind(&IDS[10..], 0, 10)], &[point]);
    let expected = full.square(point, 0).unwrap().narrow(1, 10, 4).unwrap();
    let found = split.square(point, 1).unwrap();
    assert_eq!(found.dims(), [4, 4, 14]);
    close("pattern", flat(found), &flat(&expected), TOLERANCE);
}

/// The keys and values of a run of these ids.
fn stored_run(session: &Session, ids: &[u32]) -> Arc<KeyValues> {
    let kv = [points(BlockPoint::K), points(BlockPoint::V)].concat();
    let (_, kept) = run(session, vec![Segment::prompt(ids)], &kv);
    let at = |l, point| kept.rows(HookPoint::Block(l, point)).unwrap().clone();
    let layers = (0..3).map(|l| (at(l, BlockPoint::K), at(l, BlockPoint::V))).collect();
    Arc::new(KeyValues { layers, length: ids.len(), prompt_length: ids.len() })
}

#[test]
fn keys_and_values_of_an_earlier_run_continue_it() {
    let session = gpt2();
    let past = stored_run(&session, &IDS[..8]);
    let behind_run = |ids: &[u32]| Segment { ids: ids.into(), past: Some(Past::Stored(past.clone())), resume: None };
    let segments = vec![behind_run(&IDS[8..]), Segment::prompt(&IDS[..2]), behind_run(&[5]), behind(&[6], 2, 9)];
    let (stream, _) = run(&session, segments, &[]);
    same("stored", &stream[..6], &whole(&session, &IDS)[8..]);
    same("beside it", &stream[6..8], &whole(&session, &IDS[..2]));
    same("one token", &stream[8..9], &whole(&session, &[&IDS[..8], &[5]].concat())[8..]);
    same("a borrower of the borrower", &stream[9..], &whole(&session, &[&IDS[..8], &[5, 6]].concat())[9..]);
}

#[test]
fn a_stored_run_may_cover_fewer_positions_than_its_tensors() {
    let session = gpt2();
    let past = stored_run(&session, &IDS);
    let layers = past.layers.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let shorter = Arc::new(KeyValues { layers, length: 5, prompt_length: 7 });
    let segment = Segment { ids: vec![1, 2], past: Some(Past::Stored(shorter)), resume: None };
    let expected = whole(&session, &[&IDS[..5], &[1, 2]].concat());
    same("5 of 14", &run(&session, vec![segment], &[]).0, &expected[5..]);
}

/// The stream that enters each layer in a run of these ids.
fn resid_pre(session: &Session, ids: &[u32]) -> [Tensor; 3] {
    let (_, kept) = run(session, vec![Segment::prompt(ids)], &points(BlockPoint::ResidPre));
    points(BlockPoint::ResidPre).map(|point| kept.rows(point).unwrap().clone())
}

#[test]
fn a_run_resumes_at_any_layer() {
    let session = gpt2();
    let (expected, streams) = (whole(&session, &IDS), resid_pre(&session, &IDS));
    for (l, stream) in streams.iter().enumerate() {
        same(&format!("layer {l}"), &run(&session, vec![resuming(&IDS, l, stream)], &[]).0, &expected);
    }
}

#[test]
fn segments_enter_at_layers_of_their_own() {
    let session = gpt2();
    let (a, b) = (&IDS[..5], &IDS[5..9]);
    let (streams_a, streams_b) = (resid_pre(&session, a), resid_pre(&session, b));
    let mixed = vec![
        Segment::prompt(&IDS[..3]),
        resuming(a, 0, &streams_a[0]),
        resuming(a, 1, &streams_a[1]),
        resuming(b, 1, &streams_b[1]),
        resuming(b, 2, &streams_b[2]),
    ];
    let (stream, _) = run(&session, mixed, &[]);
    same("from the start", &stream[..3], &whole(&session, &IDS[..3]));
    for (rows, ids) in [(3..8, a), (8..13, a), (13..17, b), (17..21, b)] {
        same(&format!("rows {rows:?}"), &stream[rows], &whole(&session, ids));
    }
}

#[test]
fn all_segments_may_enter_late() {
    let session = gpt2();
    let (streams, expected) = (resid_pre(&session, &IDS), whole(&session, &IDS));
    let segments = vec![resuming(&IDS, 1, &streams[1]), resuming(&IDS, 2, &streams[2])];
    let (stream, _) = run(&session, segments, &[]);
    same("at layer 1", &stream[..14], &expected);
    same("at layer 2", &stream[14..], &expected);
}

#[test]
fn a_run_resumes_behind_attention_and_behind_the_last_block() {
    let session = gpt2();
    let expected = whole(&session, &IDS);
    let wanted = [points(BlockPoint::ResidMid).as_slice(), &[HookPoint::Block(2, BlockPoint::ResidPost)]].concat();
    let (_, kept) = run(&session, vec![Segment::prompt(IDS)], &wanted);
    let at = |at, point| {
        let stream = kept.rows(point).unwrap().clone();
        Segment { ids: IDS.into(), past: None, resume: Some(Resume { at, stream }) }
    };
    let mut entries: Vec<Segment> =
        (0..3).map(|l| at(Entry::behind_attention(l), HookPoint::Block(l, BlockPoint::ResidMid))).collect();
    entries.push(at(Entry::before(3), HookPoint::Block(2, BlockPoint::ResidPost)));
    for (i, entry) in entries.iter().enumerate() {
        same(&format!("entry {i}"), &run(&session, vec![entry.clone()], &[]).0, &expected);
    }
    let together = [vec![Segment::prompt(IDS)], entries].concat();
    let (stream, _) = run(&session, together, &[]);
    stream.chunks(14).enumerate().for_each(|(i, stream)| same(&format!("{i} of all"), stream, &expected));
}

/// What a run of these ids leaves for rows that branch off it: its keys and values before each position, and streams.
fn left_by(session: &Session, ids: &[u32]) -> (impl Fn(usize) -> Arc<KeyValues>, Activations) {
    let config = &session.transformer.config;
    let all = |point| (0..config.n_layers).map(move |l| HookPoint::Block(l, point));
    let key = if config.turns_queries_and_keys() { BlockPoint::RotK } else { BlockPoint::K };
    let streams = [BlockPoint::ResidPre, BlockPoint::ResidMid, BlockPoint::ResidPost];
    let wanted = [key, BlockPoint::V].into_iter().chain(streams).flat_map(all);
    let wanted: Vec<HookPoint> = wanted.filter(|point| point.absent(config).is_none()).collect();
    let batch = Batch::new(vec![Segment::prompt(ids)], config).unwrap();
    let capture =
        Capture { points: wanted.into_iter().collect(), rows: (0..ids.len() as u32).collect(), ..Capture::default() };
    let cancel = Cancel::default();
    let mut tap = Tap::new(&capture, &cancel);
    session.transformer.forward(&batch, &mut tap).unwrap();
    let kept = tap.finish();
    let at = |l, point| kept.rows(HookPoint::Block(l, point)).unwrap().clone();
    let layers: Vec<_> = (0..config.n_layers).map(|l| (at(l, key), at(l, BlockPoint::V))).collect();
    let prompt_length = ids.len();
    (move |length| Arc::new(KeyValues { layers: layers.clone(), length, prompt_length }), kept)
}

/// Rows that branch off a run at two positions and at every place, with the stream that was there, end as the run did;
/// of every family, which differ in positions, windows, caps, sinks and norms.
#[test]
fn single_rows_branch_off_anywhere() {
    for name in parity_families() {
        let reference = json(&fixture(&format!("parity/{name}/reference.json")));
        let ids = &ids(&reference["prompts"])[1];
        for session in load_everywhere(&fixture(&format!("parity/{name}"))) {
            let session = session.unwrap();
            let (n_layers, d_model) = (session.transformer.config.n_layers, session.transformer.config.d_model);
            let (past, kept) = left_by(&session, ids);
            let expected = flat(kept.rows(HookPoint::Block(n_layers - 1, BlockPoint::ResidPost)).unwrap());
            let positions = [0, 5, ids.len() - 1];
            let pasts = positions.map(&past);
            let mut places: Vec<(Entry, HookPoint)> = Vec::new();
            for l in 0..n_layers {
                places.push((Entry::before(l), HookPoint::Block(l, BlockPoint::ResidPre)));
                if !session.transformer.config.parallel {
                    places.push((Entry::behind_attention(l), HookPoint::Block(l, BlockPoint::ResidMid)));
                }
            }
            places.push((Entry::before(n_layers), HookPoint::Block(n_layers - 1, BlockPoint::ResidPost)));
            let (mut segments, mut wanted) = (Vec::new(), Vec::new());
            for (at, point) in &places {
                for (position, past) in positions.iter().zip(&pasts) {
                    let stream = kept.rows(*point).unwrap().narrow(0, *position, 1).unwrap();
                    let past = Some(Past::Stored(past.clone()));
                    segments.push(Segment {
                        ids: vec![ids[*position]],
                        past,
                        resume: Some(Resume { at: *at, stream }),
                    });
                    wanted.extend(&expected[position * d_model..(position + 1) * d_model]);
                }
            }
            let n = segments.len() as u32;
            let batch = Batch::new(segments, &session.transformer.config).unwrap();
            // all rows, and some of them, which the last block narrows to
            for rows in [(0..n).collect::<Vec<_>>(), (0..n).filter(|row| row % 3 != 1).collect()] {
                let capture = Capture { rows: rows.clone(), ..Capture::default() };
                let cancel = Cancel::default();
                let output = session.transformer.forward(&batch, &mut Tap::new(&capture, &cancel)).unwrap();
                let of_row = |row: &u32| &wanted[*row as usize * d_model..(*row as usize + 1) * d_model];
                let wanted: Vec<f64> = rows.iter().flat_map(of_row).copied().collect();
                close(&name, flat(&output.stream), &wanted, TOLERANCE);
            }
        }
    }
}

#[test]
fn a_changed_stream_changes_the_result() {
    let session = gpt2();
    let doubled = (&resid_pre(&session, &IDS)[1] * 2.0).unwrap();
    let (stream, _) = run(&session, vec![resuming(&IDS, 1, &doubled)], &[]);
    let expected = whole(&session, &IDS);
    assert!(stream.concat().iter().zip(expected.concat()).any(|(a, b)| (a - b).abs() > 0.1));
}

#[test]
fn a_resumed_segment_may_borrow() {
    let session = gpt2();
    let stream = resid_pre(&session, &IDS)[1].narrow(0, 9, 5).unwrap().contiguous().unwrap();
    let mut late = resuming(&IDS[9..], 1, &stream);
    late.past = Some(Past::Segment { index: 0, length: 9 });
    let (rows, _) = run(&session, vec![Segment::prompt(&IDS[..9]), late], &[]);
    same("resumed behind a prefix", &rows, &whole(&session, &IDS));
}

#[test]
fn capture_keeps_the_wanted_rows_that_are_under_way() {
    // as many rows are wanted as are under way at layer 0, and they are others
    let session = gpt2();
    let (a, b) = (&IDS[..3], &IDS[3..6]);
    let streams = resid_pre(&session, b);
    let segments = vec![Segment::prompt(a), resuming(b, 1, &streams[1])];
    let batch = Batch::new(segments, &session.transformer.config).unwrap();
    let pre = points(BlockPoint::ResidPre);
    let capture = Capture { points: pre.into(), rows: vec![3, 4, 5], ..Capture::default() };
    let cancel = Cancel::default();
    let mut tap = Tap::new(&capture, &cancel);
    session.transformer.forward(&batch, &mut tap).unwrap();
    let kept = tap.finish();
    assert_eq!(kept.rows(pre[0]).unwrap().dims(), [0, 32]);
    assert_eq!(flat(kept.rows(pre[1]).unwrap()), flat(&streams[1]));
    close("layer 2", flat(kept.rows(pre[2]).unwrap()), &flat(&streams[2]), TOLERANCE);
}

// ---- refusals ----

#[track_caller]
fn refused(segments: Vec<Segment>, code: &str, argument: &str) {
    let error = error(Batch::new(segments, &gpt2().transformer.config).map(drop));
    assert_eq!(error.code(), code);
    assert_eq!(error.details().get("argument").and_then(|a| a.as_str()).unwrap_or_default(), argument);
}

#[test]
fn only_earlier_segments_lend_and_only_what_they_have() {
    let prompt = || Segment::prompt(&IDS[..3]);
    refused(vec![behind(&[1], 0, 1)], "INVALID_ARGUMENT", "past"); // its own
    refused(vec![prompt(), behind(&[1], 2, 1), prompt()], "INVALID_ARGUMENT", "past"); // a later one
    refused(vec![prompt(), behind(&[1], usize::MAX, 1)], "INVALID_ARGUMENT", "past");
    refused(vec![prompt(), behind(&[1], 0, 4)], "INVALID_ARGUMENT", "past"); // longer than it is
    refused(vec![prompt(), behind(&[1, 2], 0, 3), behind(&[1], 1, 6)], "INVALID_ARGUMENT", "past");
    let fits = vec![prompt(), behind(&[1, 2], 0, 3), behind(&[1], 1, 5)];
    let batch = Batch::new(fits, &gpt2().transformer.config).unwrap();
    assert_eq!(([0, 1, 2].map(|i| batch.rows(i)), [0, 1, 2].map(|i| batch.start(i))), ([0..3, 3..5, 5..6], [0, 3, 5]));
}

#[test]
fn layers_never_fall() {
    let stream = Tensor::zeros((1, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    let at = |layer| resuming(&[1], layer, &stream);
    refused(vec![at(2), at(1)], "INVALID_ARGUMENT", "segments");
    refused(vec![at(1), Segment::prompt([1])], "INVALID_ARGUMENT", "segments");
    refused(vec![at(0), Segment::prompt([1])], "INVALID_ARGUMENT", "segments");
    let batch = Batch::new(vec![Segment::prompt([1]), at(0), at(1), at(1), at(2)], &gpt2().transformer.config).unwrap();
    assert_eq!([0, 1, 2].map(|l| batch.active(l)), [2, 4, 5]);
    assert_eq!([0, 1, 2].map(|l| batch.entering(Entry::before(l)).count()), [1, 2, 1]);
}

#[test]
fn a_stream_fits_its_segment_and_its_layer_exists() {
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    for (layer, shape) in [(4, (2, 32)), (1, (1, 32)), (1, (3, 32)), (1, (2, 31)), (usize::MAX, (2, 32))] {
        refused(vec![resuming(&[1, 2], layer, &zeros(shape))], "INVALID_ARGUMENT", "resume");
    }
}

#[test]
fn parallel_blocks_have_no_stream_behind_attention() {
    let session = load(&fixture("parity/gptj")).unwrap();
    let stream = Tensor::zeros((1, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    let entering = |at| Segment { ids: vec![1], past: None, resume: Some(Resume { at, stream: stream.clone() }) };
    let error = error(Batch::new(vec![entering(Entry::behind_attention(0))], &session.transformer.config).map(drop));
    assert_eq!((error.code(), &error.details()["argument"]), ("INVALID_ARGUMENT", &object!("resume")));
    Batch::new(vec![entering(Entry::before(0))], &session.transformer.config).unwrap();
    // and nothing is behind the attention of a layer that is not there
    refused(vec![entering(Entry::behind_attention(3))], "INVALID_ARGUMENT", "resume");
    refused(vec![entering(Entry::behind_attention(1)), entering(Entry::before(1))], "INVALID_ARGUMENT", "segments");
}

#[test]
fn borrowed_positions_count_towards_the_context() {
    let config = gpt2().transformer.config;
    let long = |n| vec![Segment::prompt(vec![1; 60]), behind(&vec![2; n], 0, 60)];
    Batch::new(long(4), &config).unwrap();
    let error = error(Batch::new(long(5), &config).map(drop));
    assert_eq!(error.code(), "PROMPT_TOO_LONG");
    assert_eq!(error.details(), object!({ "prompt": 1, "length": 65, "nContext": 64 }));
    refused(vec![Segment::prompt([1]), behind(&[], 0, 1)], "PROMPT_EMPTY", "");
    refused(vec![Segment::prompt([1]), behind(&[101], 0, 1)], "TOKEN_RANGE", "");
}

#[test]
fn a_batch_of_nothing_cannot_run() {
    let session = gpt2();
    let batch = Batch::new(Vec::new(), &session.transformer.config).unwrap();
    let (capture, cancel) = (Capture::default(), Cancel::default());
    let error = error(session.transformer.forward(&batch, &mut Tap::new(&capture, &cancel)));
    assert_eq!(error.code(), "INVALID_ARGUMENT");
}
