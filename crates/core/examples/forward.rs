//! Head attribution beside the bare matrix products of the same shapes, alternating:
//! `cargo run --release --example forward -- CHECKPOINT PROMPTS TOKENS [ROUNDS]`. What the products do not take is what the
//! rest of the forward pass costs; under `perf record` it says where that is.

use candle_core::Device;
use logit_prism_core::attribution::{Against, Answer, Convention, OnViolation, Options, Target, Unit};
use logit_prism_core::cancel::Cancel;
use logit_prism_core::rows::Positions;
use logit_prism_core::run::{CHUNK_TOKENS, Job};
use logit_prism_core::session::{Asked, Call, LoadOptions, Session};
use logit_prism_core::tokenizer::{Prompt, Token};
use std::time::Instant;

const THREADS: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, prompts, tokens] = [0, 1, 2].map(|i| args.get(i).cloned().unwrap_or_default());
    let (prompts, tokens): (usize, usize) = (prompts.parse()?, tokens.parse()?);
    let rounds = args.get(3).map_or(Ok(10), |n| n.parse())?;

    let job = Job { cancel: &Cancel::default(), progress: &|_, _| {} };
    let options = LoadOptions { threads: Some(THREADS), ..LoadOptions::default() };
    let session = Session::load(path.as_ref(), &options, &job)?;
    let d_vocab = session.transformer.config.d_vocab;
    let ids = |p: usize| (0..tokens).map(|t| ((p * 7919 + t * 104_729) % d_vocab) as u32).collect();
    let against = Some(Against::Tokens(vec![Token::Id(2)]));
    let call = Call {
        asked: Asked {
            prompts: (0..prompts).map(|p| Prompt::Ids(ids(p))).collect(),
            positions: Positions::Last,
            prepend_bos: None,
            chunk_tokens: None,
        },
        targets: vec![Target::Tokens { answer: Answer::Tokens(vec![Token::Id(1)]), against }],
        options: Options {
            unit: Unit::Head,
            top: None,
            convention: Convention::Default,
            norm: None,
            on_violation: OnViolation::Throw,
        },
    };
    let (mut ours, mut bare) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        let start = Instant::now();
        session.attribute(&call, &job)?;
        ours = ours.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        products(&session, prompts * tokens, prompts);
        bare = bare.min(start.elapsed().as_secs_f64());
    }
    println!(
        "{prompts} x {tokens}: {:.1} ms, bare products {:.1} ms, {:.0} %",
        ours * 1e3,
        bare * 1e3,
        100.0 * bare / ours
    );
    Ok(())
}

/// The products of the blocks with gemm, every thread its own chunks; of the last block what the wanted rows need.
fn products(session: &Session, rows: usize, wanted: usize) {
    assert!(matches!(session.transformer.device, Device::Cpu));
    let c = &session.transformer.config;
    let (d, kv, m) = (c.d_model, 2 * c.n_key_value_heads * c.d_head, c.d_mlp);
    let all = [(d, d + kv, rows), (d, d, rows), (d, m, rows), (m, d, rows)];
    let last = [(d, kv, rows), (d, d, wanted), (d, d, wanted), (d, m, wanted), (m, d, wanted)];
    let weights: Vec<f32> = vec![0.01; d * m.max(d + kv) * 4];
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (weights, all, last) = (&weights, &all, &last);
            scope.spawn(move || {
                let x = vec![1f32; CHUNK_TOKENS * m];
                let mut y = vec![0f32; CHUNK_TOKENS * m.max(d + kv)];
                for l in 0..c.n_layers {
                    for (k, n, rows) in if l + 1 == c.n_layers { &last[..] } else { &all[..] } {
                        let chunks = rows.div_ceil(CHUNK_TOKENS);
                        for chunk in (thread..chunks.max(THREADS)).step_by(THREADS) {
                            // fewer chunks than threads: each takes its part of the columns
                            let (rows, n) = if chunks < THREADS {
                                (*rows, n / THREADS)
                            } else {
                                (CHUNK_TOKENS.min(rows.saturating_sub(chunk * CHUNK_TOKENS)), *n)
                            };
                            // SAFETY: the buffers are as large as the largest product
                            unsafe {
                                gemm::gemm(
                                    rows,
                                    n,
                                    *k,
                                    y.as_mut_ptr(),
                                    1,
                                    n as isize,
                                    false,
                                    x.as_ptr(),
                                    1,
                                    *k as isize,
                                    weights[l % 4 * k * n..].as_ptr(),
                                    1,
                                    n as isize,
                                    0.0,
                                    1.0,
                                    false,
                                    false,
                                    false,
                                    gemm::Parallelism::None,
                                );
                            }
                        }
                    }
                }
            });
        }
    });
}
