//! Against float64 references that `transformers` made (test/fixtures/make_reference.py): logits, patterns, the stream
//! after every block, and every attribution at the last and at every position.

mod common;

use common::*;
use logit_prism_core::hook::{BlockPoint, HookPoint};
use logit_prism_core::rows::Positions;
use logit_prism_core::session::Session;
use serde_json::Value;

/// An f32 forward pass of models this small is this close; the promise to users is 1e-4.
const TOLERANCE: f64 = 1e-5;

fn check(name: &str) {
    for session in load_everywhere(&fixture(name)) {
        let session = session.unwrap();
        let reference = json(&fixture(name).join("reference.json"));
        last_positions(&session, &reference);
        first_prompt(&session, &reference);
        every_position(&session, &reference);
    }
}

fn last_positions(session: &Session, reference: &Value) {
    let result = attribute(session, &reference_call(reference)).unwrap();
    let n = result.values.len() / result.rows.len();
    for (i, expected) in reference["attributions"].as_array().unwrap().iter().enumerate() {
        let columns = head_columns(expected, |v| v.as_f64().unwrap());
        close(&format!("prompt {i}"), wide(&result.values[i * n..(i + 1) * n]), &columns, TOLERANCE);
        close("constant", [result.constant[i]], &numbers(&expected["constant"]), TOLERANCE);
        close("measured", [result.certificates[i].measured], &numbers(&expected["logit_difference"]), TOLERANCE);
        close("total", [result.certificates[i].total], &numbers(&expected["logit_difference"]), TOLERANCE);
    }
    for (i, prompt) in ids(&reference["prompts"]).into_iter().enumerate() {
        let seen = observe(session, prompt, &[]).unwrap();
        close("last logits", wide(&seen.logits(0).unwrap().1), &numbers(&reference["logits_last"][i]), TOLERANCE);
    }
}

fn first_prompt(session: &Session, reference: &Value) {
    let n_layers = session.transformer.config.n_layers;
    let points: Vec<HookPoint> = (0..n_layers)
        .flat_map(|l| {
            [BlockPoint::Pattern, BlockPoint::ResidPre, BlockPoint::ResidPost].map(|p| HookPoint::Block(l, p))
        })
        .collect();
    let seen = observe(session, ids(&reference["prompts"]).remove(0), &points).unwrap();
    let values = |l, point| wide(&seen.values(HookPoint::Block(l, point), 0).unwrap().1);
    let expected = &reference["first_prompt"];
    for l in 0..n_layers {
        close("pattern", values(l, BlockPoint::Pattern), &numbers(&expected["pattern"][l]), TOLERANCE);
        close("resid_pre", values(l, BlockPoint::ResidPre), &numbers(&expected["resid_pre_and_final"][l]), TOLERANCE);
        close(
            "resid_post",
            values(l, BlockPoint::ResidPost),
            &numbers(&expected["resid_pre_and_final"][l + 1]),
            TOLERANCE,
        );
    }
}

fn every_position(session: &Session, reference: &Value) {
    let mut call = reference_call(reference);
    call.asked.prompts.truncate(1);
    call.targets.truncate(1);
    call.asked.positions = Positions::All;
    let result = attribute(session, &call).unwrap();
    let n = result.values.len() / result.rows.len();
    let expected = &reference["first_prompt"];
    for (position, row) in result.values.chunks(n).enumerate() {
        let heads = expected["head_at_every_position"].as_array().unwrap();
        let found = (0..n).filter(|c| {
            *c >= 2 && (c - 2) % (heads[0].as_array().unwrap().len() + 2) < heads[0].as_array().unwrap().len()
        });
        let heads: Vec<f64> =
            heads.iter().flat_map(|l| l.as_array().unwrap()).map(|h| h[position].as_f64().unwrap()).collect();
        close("heads", found.map(|c| f64::from(row[c])), &heads, TOLERANCE);
        let measured = numbers(&expected["logit_difference_at_every_position"][position]);
        close("measured", [result.certificates[position].measured], &measured, TOLERANCE);
    }
}

macro_rules! parity {
    ($($name:ident),*) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

parity!(
    gpt2,
    gpt2_bare,
    gpt2_bf16,
    gpt2_f16,
    gpt2_relu,
    gpt2_scaled,
    gpt2_sharded,
    gpt2_silu,
    gpt2_unscaled,
    gpt2_untied,
    gpt2_wide
);
