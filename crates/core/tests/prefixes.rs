//! Prompts that begin alike: what they have in common is computed once, and the numbers are those of each prompt alone.

mod common;

use common::*;
use logit_prism_core::attribution::Attribution;
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{Call, Session};

/// A tree: prompts that share 24 tokens, some of them more, one nothing; one twice.
fn prompts(d_vocab: usize) -> Vec<Vec<u32>> {
    let token = |i: usize| ((i * 7 + 3) % d_vocab) as u32;
    let prompt = |parts: &[(usize, usize)]| parts.iter().flat_map(|(from, to)| *from..*to).map(token).collect();
    vec![
        prompt(&[(0, 24), (30, 32)]),
        prompt(&[(0, 24), (40, 45)]),
        prompt(&[(0, 24), (40, 44), (50, 51)]),
        prompt(&[(5, 12)]),
        prompt(&[(0, 24), (30, 32)]),
        prompt(&[(0, 17), (60, 64)]),
    ]
}

fn values(result: &Attribution, row: usize) -> &[f32] {
    let n = result.values.len() / result.rows.len();
    &result.values[row * n..(row + 1) * n]
}

fn alone(session: &Session, whole: &Call, i: usize) -> Attribution {
    let mut one = whole.clone();
    one.asked.prompts = vec![whole.asked.prompts[i].clone()];
    if let Positions::PerPrompt(lists) = &whole.asked.positions {
        one.asked.positions = Positions::PerPrompt(vec![lists[i].clone()]);
    }
    attribute(session, &one).unwrap()
}

fn check(name: &str, positions: Positions) {
    let session = load(&fixture(name)).unwrap();
    let config = &session.transformer.config;
    let prompts = prompts(config.d_vocab);
    if prompts.iter().any(|p| p.len() > config.n_context) {
        panic!("{name}: a context of {}", config.n_context);
    }
    let mut call = call(prompts, vec![pair(1, 2)]);
    call.asked.positions = positions;
    let together = attribute(&session, &call).unwrap();
    let mut row = 0;
    for i in 0..call.asked.prompts.len() {
        let expected = alone(&session, &call, i);
        for (r, certificate) in expected.certificates.iter().enumerate() {
            assert_eq!((together.rows[row].prompt, together.rows[row].position), (i, expected.rows[r].position));
            let (found, wanted) = (values(&together, row), values(&expected, r));
            for (a, b) in found.iter().zip(wanted) {
                assert!(f64::from((a - b).abs()) <= certificate.tolerance, "{name}, prompt {i}: {a} and {b}");
            }
            row += 1;
        }
    }
    assert_eq!(row, together.rows.len());
}

macro_rules! shared {
    ($($name:ident),*) => { $(#[test] fn $name() {
        let name = concat!("parity/", stringify!($name));
        check(name, Positions::Last);
        check(name, Positions::PerPrompt(vec![vec![-1], vec![20, -1], vec![-2], vec![0], vec![-1], vec![18]]));
    })* };
}

shared!(
    bloom,
    cohere,
    falcon,
    gemma,
    gemma2,
    gemma3,
    glm4,
    gpt2,
    gpt_bigcode,
    gpt_neo,
    gpt_neox,
    gpt_oss,
    gptj,
    granite,
    llama,
    llama3_rope,
    mistral,
    mixtral,
    mpt,
    nemotron,
    olmo2,
    opt,
    phi,
    phi3,
    qwen2,
    qwen3_moe,
    stablelm
);

#[test]
fn every_position_is_its_prompts_own() {
    check("parity/gpt2", Positions::All);
}
