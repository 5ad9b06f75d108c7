//! Where the time of head attribution goes, for models of GPT-2's kind:
//! `cargo run --release --example profile -- CHECKPOINT PROMPTS TOKENS [ROUNDS [THREADS]]` prints one line of JSON. In turns:
//!
//! - the call itself;
//! - the same forward pass, written out below over the same operations with a clock around each. It must give the logits
//!   that the call measured. Shares are of the time that threads spend in it: what is not in an operation is `rest`
//!   (rows gathered and copied, memory, waiting);
//! - the bare matrix products of the same shapes, by the `gemm` crate.
//!
//! The memory allocator is the system's, not the addon's.

use candle_core::{Device, Tensor};
use logit_prism_core::attribution::{Against, Answer, Convention, OnViolation, Options, Target, Unit};
use logit_prism_core::cancel::Cancel;
use logit_prism_core::model::{Block, Linear, Mlp, NormLayer, Transformer};
use logit_prism_core::ops;
use logit_prism_core::rows::Positions;
use logit_prism_core::run::{self, CHUNK_TOKENS, Job};
use logit_prism_core::session::{Asked, Call, LoadOptions, Session};
use logit_prism_core::tokenizer::{Prompt, Token};
use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const ANSWER: u32 = 1;
const AGAINST: u32 = 2;
/// Of a logit difference, as for the certificate of numbers of this size.
const TOLERANCE: f64 = 1e-3;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, otherwise: usize| args.get(i).map_or(Ok(otherwise), |n| n.parse());
    let (path, prompts, tokens) = (args.first().cloned().unwrap_or_default(), number(1, 32)?, number(2, 16)?);
    let (rounds, threads) = (number(3, 10)?, number(4, 2)?);

    let job = Job { cancel: &Cancel::default(), progress: &|_, _| {} };
    let session =
        Session::load(path.as_ref(), &LoadOptions { threads: Some(threads), ..LoadOptions::default() }, &job)?;
    let ids: Vec<Vec<u32>> = (0..prompts).map(|p| random_ids(p, tokens, session.transformer.config.d_vocab)).collect();
    let (call, pool) = (call(&ids), run::pool(Some(threads))?);

    let (mut whole, mut bare, mut best) = (f64::INFINITY, f64::INFINITY, None::<Profile>);
    for _ in 0..rounds {
        let start = Instant::now();
        let (_, result) = session.attribute(&call, &job)?;
        whole = whole.min(start.elapsed().as_secs_f64());
        let profile = profiled(&session.transformer, &pool, &ids)?;
        for (found, certificate) in profile.differences.iter().zip(&result.certificates) {
            let off = (found - certificate.measured).abs();
            assert!(off <= TOLERANCE, "{found} is not {}", certificate.measured);
        }
        if best.as_ref().is_none_or(|best| profile.seconds < best.seconds) {
            best = Some(profile);
        }
        let start = Instant::now();
        products(&session, prompts * tokens, prompts, threads);
        bare = bare.min(start.elapsed().as_secs_f64());
    }
    let best = best.ok_or("no rounds")?;
    let shares: Vec<String> = best.shares().iter().map(|(name, share)| format!("\"{name}\":{share:.4}")).collect();
    println!("{{\"call\":{whole},\"forward\":{},\"shares\":{{{}}},\"gemm\":{bare}}}", best.seconds, shares.join(","));
    Ok(())
}

fn random_ids(prompt: usize, tokens: usize, d_vocab: usize) -> Vec<u32> {
    (0..tokens).map(|t| ((prompt * 7919 + t * 104_729) % d_vocab) as u32).collect()
}

/// Head attribution of a difference of two logits at the last positions.
fn call(ids: &[Vec<u32>]) -> Call {
    let against = Some(Against::Tokens(vec![Token::Id(AGAINST)]));
    Call {
        asked: Asked {
            prompts: ids.iter().cloned().map(Prompt::Ids).collect(),
            positions: Positions::Last,
            prepend_bos: None,
            chunk_tokens: None,
        },
        targets: vec![Target::Tokens { answer: Answer::Tokens(vec![Token::Id(ANSWER)]), against }],
        options: Options {
            unit: Unit::Head,
            top: None,
            convention: Convention::Default,
            norm: None,
            on_violation: OnViolation::Throw,
        },
    }
}

/// The kinds of operations that are told apart.
#[derive(Clone, Copy)]
enum Part {
    Products,
    Attention,
    Norm,
    Activation,
    Sums,
}

const NAMES: [&str; 5] = ["matrix products", "attention", "norm", "activation", "sums"];

/// What a forward pass took and what it gave.
struct Profile {
    seconds: f64,
    /// Of each part, over all threads.
    parts: [f64; NAMES.len()],
    /// Of all chunks, over all threads.
    busy: f64,
    /// logit(answer) − logit(against) of every prompt.
    differences: Vec<f64>,
}

impl Profile {
    fn shares(&self) -> Vec<(&'static str, f64)> {
        let rest = self.busy - self.parts.iter().sum::<f64>();
        let named = NAMES.into_iter().zip(self.parts).chain([("rest", rest)]);
        named.map(|(name, seconds)| (name, seconds / self.busy)).collect()
    }
}

/// The forward pass over chunks of whole prompts, as `run.rs` puts them onto threads.
fn profiled(model: &Transformer, pool: &rayon::ThreadPool, ids: &[Vec<u32>]) -> Result<Profile, Box<dyn Error>> {
    let chunks: Vec<&[Vec<u32>]> = ids.chunks((CHUNK_TOKENS / ids[0].len()).max(1)).collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let start = Instant::now();
    pool.broadcast(|_| {
        while let Some((i, chunk)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, chunks.get(i)?)))
        {
            let (begun, mut clock) = (Instant::now(), Clock::default());
            let differences = forward(model, chunk, &mut clock).expect("the call itself went through");
            done.lock().expect("no thread panicked").push((i, begun.elapsed().as_secs_f64(), clock, differences));
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let mut done = done.into_inner()?;
    done.sort_by_key(|(i, ..)| *i);
    let mut profile = Profile { seconds, parts: [0.0; NAMES.len()], busy: 0.0, differences: Vec::new() };
    for (_, busy, clock, differences) in done {
        profile.busy += busy;
        profile.parts.iter_mut().zip(clock.0).for_each(|(sum, part)| *sum += part);
        profile.differences.extend(differences);
    }
    Ok(profile)
}

/// Seconds of each part.
#[derive(Default)]
struct Clock([f64; NAMES.len()]);

impl Clock {
    fn time<T>(&mut self, part: Part, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.0[part as usize] += start.elapsed().as_secs_f64();
        result
    }
}

/// The difference of logits at the last position of every prompt; the prompts have one length.
fn forward(model: &Transformer, ids: &[Vec<u32>], clock: &mut Clock) -> logit_prism_core::Result<Vec<f64>> {
    let (kernels, length) = (model.kernels, ids[0].len());
    let tokens = model.embed.tokens.index_select(&Tensor::new(ids.concat(), &Device::Cpu)?, 0)?;
    let positions = model.embed.positions.as_ref().expect("learned positions").narrow(0, 0, length)?;
    let positions = Tensor::cat(&vec![positions; ids.len()], 0)?;
    let mut x = clock.time(Part::Sums, || ops::add(kernels, &tokens, &positions))?;
    let last: Vec<u32> = (1..=ids.len()).map(|n| (n * length - 1) as u32).collect();
    let last = Tensor::new(last, &Device::Cpu)?;
    for block in &model.blocks {
        let wanted = (block.layer + 1 == model.blocks.len()).then_some(&last);
        x = pass(model, block, x, length, wanted, clock)?;
    }
    let normed = norm(model, &model.ln_final, &x, clock)?;
    let columns = model.unembed.weight.index_select(&Tensor::new(&[ANSWER, AGAINST], &Device::Cpu)?, 0)?;
    let logits: Vec<Vec<f32>> = normed.matmul(&columns.t()?)?.to_vec2()?;
    Ok(logits.iter().map(|row| f64::from(row[0]) - f64::from(row[1])).collect())
}

/// One block; of the last one only the rows that are wanted.
fn pass(
    model: &Transformer,
    block: &Block,
    x: Tensor,
    length: usize,
    wanted: Option<&Tensor>,
    clock: &mut Clock,
) -> logit_prism_core::Result<Tensor> {
    let (kernels, attention) = (model.kernels, &block.attention);
    let (e, n_heads, n_kv) = (attention.d_head, attention.n_heads, attention.n_key_value_heads);
    let of_wanted = |x: &Tensor| wanted.map_or_else(|| Ok(x.clone()), |rows| x.index_select(rows, 0));
    let heads = |x: Tensor| x.reshape((x.dim(0)?, x.dim(1)? / e, e));

    let read = norm(model, block.ln1.as_ref().expect("a norm before attention"), &x, clock)?;
    let (q, kv) = match wanted {
        None => {
            let qkv = heads(linear(model, &read, &attention.qkv, 0..(n_heads + 2 * n_kv) * e, clock)?)?;
            (qkv.narrow(1, 0, n_heads)?, qkv.narrow(1, n_heads, 2 * n_kv)?)
        }
        Some(_) => {
            let q = linear(model, &of_wanted(&read)?, &attention.qkv, 0..n_heads * e, clock)?;
            let kv = linear(model, &read, &attention.qkv, n_heads * e..(n_heads + 2 * n_kv) * e, clock)?;
            (heads(q)?, heads(kv)?)
        }
    };
    let (k, v) = (kv.narrow(1, 0, n_kv)?, kv.narrow(1, n_kv, n_kv)?);
    let queries = if wanted.is_some() { 1 } else { length };
    let z = (0..x.dim(0)? / length).map(|prompt| {
        let own = |t: &Tensor| t.narrow(0, prompt * length, length);
        let (q, k, v) = (q.narrow(0, prompt * queries, queries)?, own(&k)?, own(&v)?);
        clock.time(Part::Attention, || ops::attend(kernels, &q, length - queries, [&k, &v], &attention.rule, None))
    });
    let z = Tensor::cat(&z.collect::<logit_prism_core::Result<Vec<_>>>()?, 0)?.flatten_from(1)?;
    let attn_out = linear(model, &z, &attention.output, 0..model.config.d_model, clock)?;
    let x = of_wanted(&x)?;
    let x = clock.time(Part::Sums, || ops::add(kernels, &x, &attn_out))?;

    let read = norm(model, block.ln2.as_ref().expect("a norm before the MLP"), &x, clock)?;
    let Mlp::Plain { input, activation, output } = &block.mlp else { panic!("an MLP of GPT-2's kind") };
    let pre = linear(model, &read, input, 0..input.weight.n_out(), clock)?;
    let post = clock.time(Part::Activation, || activation.apply(kernels, &pre))?;
    let mlp_out = linear(model, &post, output, 0..model.config.d_model, clock)?;
    clock.time(Part::Sums, || ops::add(kernels, &x, &mlp_out))
}

fn norm(model: &Transformer, norm: &NormLayer, x: &Tensor, clock: &mut Clock) -> logit_prism_core::Result<Tensor> {
    let weights = [norm.gamma.as_ref(), norm.beta.as_ref()];
    Ok(clock.time(Part::Norm, || ops::norm(model.kernels, x, norm.norm, weights, false))?.y)
}

/// These columns of `x W + b`.
fn linear(
    model: &Transformer,
    x: &Tensor,
    matrix: &Linear,
    columns: std::ops::Range<usize>,
    clock: &mut Clock,
) -> logit_prism_core::Result<Tensor> {
    let weight = matrix.weight.columns(columns.clone())?;
    let bias = matrix.bias.as_ref().map(|bias| bias.narrow(0, columns.start, columns.len())).transpose()?;
    clock.time(Part::Products, || ops::linear(model.kernels, x, &weight, bias.as_ref()))
}

/// The products of the blocks with gemm, every thread its own chunks; of the last block what the wanted rows need.
fn products(session: &Session, rows: usize, wanted: usize, threads: usize) {
    assert!(matches!(session.transformer.device, Device::Cpu));
    let c = &session.transformer.config;
    let (d, kv, m) = (c.d_model, 2 * c.n_key_value_heads * c.d_head, c.d_mlp);
    let all = [(d, d + kv, rows), (d, d, rows), (d, m, rows), (m, d, rows)];
    let last = [(d, kv, rows), (d, d, wanted), (d, d, wanted), (d, m, wanted), (m, d, wanted)];
    let weights: Vec<f32> = vec![0.01; d * m.max(d + kv) * 4];
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (weights, all, last) = (&weights, &all, &last);
            scope.spawn(move || {
                let x = vec![1f32; CHUNK_TOKENS * m];
                let mut y = vec![0f32; CHUNK_TOKENS * m.max(d + kv)];
                for l in 0..c.n_layers {
                    for (k, n, rows) in if l + 1 == c.n_layers { &last[..] } else { &all[..] } {
                        let chunks = rows.div_ceil(CHUNK_TOKENS);
                        for chunk in (thread..chunks.max(threads)).step_by(threads) {
                            // fewer chunks than threads: each takes its part of the columns
                            let (rows, n) = if chunks < threads {
                                (*rows, n / threads)
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
