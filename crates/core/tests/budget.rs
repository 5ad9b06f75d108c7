//! The figures by which calls are refused or cut, against what the calls take: every allocation is counted. Models a few
//! times larger than the fixtures, so that numbers outweigh bookkeeping.

mod common;

use candle_core::Device;
use common::*;
use logit_prism_core::attribution::lens::LensNorm;
use logit_prism_core::attribution::{OnViolation, Target, Unit};
use logit_prism_core::cache::Logits;
use logit_prism_core::checkpoint::Checkpoint;
use logit_prism_core::chunk::Prompted;
use logit_prism_core::config::{ModelConfig, RawConfig};
use logit_prism_core::device::{DeviceName, WeightDtype};
use logit_prism_core::ops::Kernels;
use logit_prism_core::patch::{Patching, Place as PatchAt};
use logit_prism_core::rows::Positions;
use logit_prism_core::run::{self, Place};
use logit_prism_core::session::{
    AblateAt, AblateCall, Asked, Call, LensCall, LoadOptions, PairsCall, PatchCall, PathsCall, ProbeCall, RunCall,
    Session, SetTo, SourcesCall, TopTokensCall, WithoutCall,
};
use logit_prism_core::tokenizer::Prompt;
use logit_prism_core::{Result, memory, model};
use serde_json::json as object;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let live = LIVE.fetch_add(size, Ordering::Relaxed) + size - layout.size();
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `f` takes at its peak, above what was taken before.
fn peak(f: impl FnOnce()) -> u64 {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    f();
    (PEAK.load(Ordering::Relaxed) - before) as u64
}

/// A fixture with other sizes: every axis and every number of the config that is one of `sizes` becomes another.
fn enlarged(name: &str, sizes: &[(usize, usize)], config: serde_json::Value) -> TempDir {
    let dir = TempDir::copy_of(name);
    let mut merged = json(&dir.join("config.json"));
    merged.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    dir.write("config.json", merged.to_string());
    let mut tensors = read_tensors(&dir.join("model.safetensors"));
    let mut state = 1u32;
    for (_, shape, bytes) in tensors.values_mut() {
        shape.iter_mut().for_each(|n| *n = sizes.iter().find(|(from, _)| from == n).map_or(*n, |(_, to)| *to));
        let number = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.2
        };
        *bytes = (0..shape.iter().product::<usize>()).map(number).flat_map(f32::to_le_bytes).collect();
    }
    write_tensors(&dir.join("model.safetensors"), &tensors);
    dir
}

const TOKENS: usize = 120;

fn prompt(positions: Positions) -> Asked {
    Asked { positions, ..asked(vec![(0..TOKENS as u32).map(|i| i * 7 % 1000).collect()]) }
}

fn attributing(unit: Unit, positions: Positions) -> Call {
    let mut call = call(Vec::new(), vec![pair(6, 5)]);
    call.asked = prompt(positions);
    call.options.unit = unit;
    call
}

type Asking = Box<dyn Fn(&Session) -> Result<()>>;

/// Every call whose memory is estimated, at one row, some and all.
fn calls(d_model: usize) -> Vec<(String, Asking)> {
    let mut calls: Vec<(String, Asking)> = Vec::new();
    let some = Positions::Of((0..12).map(|i| i * 10).collect());
    for positions in [Positions::Last, some, Positions::All] {
        let mut add = |name: String, call: Asking| calls.push((format!("{name} at {positions:?}"), call));
        for unit in [Unit::Head, Unit::Neuron] {
            let call = attributing(unit, positions.clone());
            add(format!("attribute by {unit:?}"), Box::new(move |s| with_job(|job| s.attribute(&call, job)).map(drop)));
        }
        for logits in [Logits::Last, Logits::All, Logits::None] {
            for points in ["*", "blocks.*.attn.hook_z", "blocks.2.hook_resid_post"] {
                let call = RunCall { asked: prompt(positions.clone()), points: vec![points.into()], logits };
                add(format!("run {points} {logits:?}"), Box::new(move |s| with_job(|job| s.run(&call, job)).map(drop)));
            }
        }
        for heads in [None, Some(vec!["L1H2".into()])] {
            let call = SourcesCall { call: attributing(Unit::Head, positions.clone()), heads };
            add(
                format!("sources {:?}", call.heads),
                Box::new(move |s| with_job(|job| s.sources(&call, job)).map(drop)),
            );
        }
        for (norm, top) in [(LensNorm::Recomputed, 10), (LensNorm::Frozen, 0)] {
            let call = LensCall { asked: prompt(positions.clone()), targets: vec![pair(6, 5)], norm, top };
            add(format!("lens {norm:?}"), Box::new(move |s| with_job(|job| s.lens(&call, job)).map(drop)));
        }
        for (components, unit) in [(None, Unit::Head), (Some(vec!["L1H2".into()]), Unit::Head)] {
            let asked = prompt(positions.clone());
            let call = TopTokensCall { asked, unit, components, k: 10, masked: vec![3] };
            let name = format!("tokens of {:?}", call.components);
            add(name, Box::new(move |s| with_job(|job| s.top_tokens(&call, job)).map(drop)));
        }
        for n in [1, 100] {
            let directions = (0..n * d_model).map(|i| (i % 17) as f32 - 8.0).collect();
            let (at, unit) = ("blocks.2.hook_resid_post".into(), Unit::Head);
            let asked = prompt(positions.clone());
            let call = ProbeCall { asked, directions, at, unit, on_violation: OnViolation::Warn };
            add(format!("{n} directions"), Box::new(move |s| with_job(|job| s.probe(&call, job)).map(drop)));
        }
    }
    let tokens =
        TopTokensCall { asked: prompt(Positions::Last), unit: Unit::Neuron, components: None, k: 5, masked: vec![] };
    let mut many = attributing(Unit::Neuron, Positions::All);
    many.asked.prompts = vec![logit_prism_core::tokenizer::Prompt::Ids(vec![1, 2, 3]); 300];
    many.asked.chunk_tokens = Some(3);
    calls.push(("many prompts".into(), Box::new(move |s| with_job(|job| s.attribute(&many, job)).map(drop))));
    calls.push(("tokens of neurons".into(), Box::new(move |s| with_job(|job| s.top_tokens(&tokens, job)).map(drop))));
    calls
}

/// Every call that changes a run: one prompt of which all components or places are taken, and some prompts.
fn causes() -> Vec<(String, Asking)> {
    let mut calls: Vec<(String, Asking)> = Vec::new();
    let prompts = |n: usize, seed: u32| {
        let ids = |i: u32| (0..TOKENS as u32).map(|t| (t * 7 + i * 31 + seed) % 1000).collect::<Vec<u32>>();
        (0..n as u32).map(ids).collect::<Vec<_>>()
    };
    let texts = |n, seed| prompts(n, seed).into_iter().map(Prompt::Ids).collect::<Vec<_>>();
    for n in [1, 6] {
        let mut add = |name: &str, call: Asking| calls.push((format!("{name} in {n} prompts"), call));
        let sets = [
            ("zero", SetTo::Zero),
            ("values of others", SetTo::From(texts(n, 5))),
            ("a mean", SetTo::Mean { reference: texts(4, 3), by_position: true }),
        ];
        for (what, set) in sets {
            for (where_, at) in [("the row", AblateAt::Row), ("every position", AblateAt::All)] {
                let call = AblateCall {
                    asked: asked(prompts(n, 0)),
                    targets: vec![pair(6, 5)],
                    unit: Unit::Head,
                    components: None,
                    set: set.clone(),
                    at,
                    on_violation: OnViolation::Warn,
                };
                let name = format!("ablate with {what} at {where_}");
                add(&name, Box::new(move |s| with_job(|job| s.ablate(&call, job)).map(drop)));
            }
            let sets = vec![vec![1, 2, 3], vec![2, 5], Vec::new()];
            let call = WithoutCall { asked: asked(prompts(n, 0)), targets: vec![pair(6, 5)], sets, set: set.clone() };
            add(&format!("three sets with {what}"), Box::new(move |s| with_job(|job| s.without(&call, job)).map(drop)));
        }
        let pairs = PairsCall {
            clean: asked(prompts(n, 0)),
            corrupt: texts(n, 5),
            targets: vec![pair(6, 5)],
            positions: Positions::All,
            corrupt_positions: None,
        };
        for (what, at, by_head, by_position) in
            [("streams", PatchAt::ResidPre, false, true), ("heads", PatchAt::Z, true, false)]
        {
            let call =
                PatchCall { pairs: pairs.clone(), patching: Patching { at, by_head, by_position }, noising: true };
            add(&format!("patch {what}"), Box::new(move |s| with_job(|job| s.patch(&call, job)).map(drop)));
        }
        for through_mlps in [false, true] {
            let to = vec!["logits".into()];
            let call = PathsCall { pairs: pairs.clone(), from: None, to, each: true, through_mlps };
            let name = format!("paths, through MLPs {through_mlps}");
            add(&name, Box::new(move |s| with_job(|job| s.patch_paths(&call, job)).map(drop)));
        }
    }
    calls
}

/// That no call takes more than the figure that it would be refused with, and that the figure is not out of all bounds.
fn check(name: &str, dir: &TempDir, d_model: usize) {
    let on = |device, left: Option<u64>| {
        let weights = load(&dir.0).unwrap().weight_bytes;
        let memory_limit = left.map(|left| weights + left);
        load_with(&dir.0, &LoadOptions { device, threads: Some(1), memory_limit, ..LoadOptions::default() }).unwrap()
    };
    let with = |left| on(DeviceName::Cpu, left);
    let (free, tight) = (with(None), with(Some(1)));
    let mut wrong = Vec::new();
    let mut compare = |what: String, call: &dyn Fn(&Session) -> Result<()>| {
        let refused = error(call(&tight));
        assert_eq!(refused.code(), "MEMORY", "{what}: {refused}");
        let needed = refused.details()["needed"].as_u64().unwrap();
        call(&free).unwrap(); // what is made once for a model is there now
        let taken = peak(|| call(&free).unwrap());
        let line = format!("{name}: {what}: {taken} of {needed} bytes, {:.2}", taken as f64 / needed as f64);
        println!("{line}");
        if taken > needed || needed > 8 * taken {
            wrong.push(line);
        }
    };
    for (what, call) in calls(d_model) {
        compare(what, &call);
    }
    let everything = |asked| RunCall { asked, points: vec!["*".into()], logits: Logits::All };
    let cache = with_job(|job| free.run(&everything(prompt(Positions::All)), job)).unwrap();
    for unit in [Unit::Head, Unit::Neuron] {
        let options = attributing(unit, Positions::All).options;
        let from_run = |s: &Session| with_job(|job| s.attribute_run(&cache, &[pair(6, 5)], &options, job)).map(drop);
        compare(format!("attribute a run by {unit:?}"), &from_run);
    }
    for unit in [Unit::Layer, Unit::Head, Unit::Neuron] {
        // neurons of few rows: of all they are gigabytes
        let positions = if unit == Unit::Neuron { Positions::Of(vec![3, 110]) } else { Positions::All };
        let cache = with_job(|job| free.run(&everything(prompt(positions)), job)).unwrap();
        let decompose = |s: &Session| with_job(|job| s.decompose_run(&cache, unit, job)).map(drop);
        compare(format!("the stack of a run by {unit:?}"), &decompose);
    }
    let path = dir.join("run.safetensors");
    free.save_run(&cache, &path).unwrap();
    compare("load a run".into(), &|s| s.load_run(&path).map(drop));
    // some of these run references first: what a call asks for in the end is what it may take. Their results are small, so
    // that what a GPU that is none takes is counted as well
    let with = |left| on(test_gpu().filter(|_| cfg!(feature = "pretend-gpu")).unwrap_or_default(), left);
    for (what, call) in causes() {
        let (mut left, mut session) = (1, with(Some(1)));
        while let Err(refused) = call(&session) {
            assert_eq!(refused.code(), "MEMORY", "{what}: {refused}");
            let needed = refused.details()["needed"].as_u64().unwrap();
            let available = refused.details()["available"].as_u64().unwrap();
            left += needed - available;
            session = with(Some(left));
        }
        let taken = peak(|| call(&session).unwrap());
        let line = format!("{name}: {what}: {taken} of {left} bytes, {:.2}", taken as f64 / left as f64);
        println!("{line}");
        // a GPU's figures are for more runs at once than these calls have
        let bound = if session.transformer.device.is_cpu() { 8 } else { 64 };
        if taken > left || left > bound * taken {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// That the operations of a GPU take no more than a GPU is asked for: they run on the CPU as well, where every allocation is
/// counted. Prompts of one length, all in one chunk, and ragged ones.
fn check_plain(name: &str, dir: &TempDir) {
    let raw = RawConfig::parse("config.json", &std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let config = ModelConfig::resolve(raw, false).unwrap();
    let pool = run::pool(Some(1)).unwrap();
    for (dtype, lengths) in [WeightDtype::F32, WeightDtype::Bf16]
        .into_iter()
        .flat_map(|dtype| [vec![60; 24], (1..=30).map(|n| 3 * n).collect::<Vec<usize>>()].map(|l| (dtype, l)))
    {
        let checkpoint = Checkpoint::open(&dir.0).unwrap();
        let mut model = model::load(config.clone(), &checkpoint, &Device::Cpu, dtype, |_| Ok(())).unwrap();
        model.run_on(Kernels::Plain);
        // no two begin alike: nothing is shared, as on a GPU
        let ids =
            |(i, n): (usize, &usize)| (0..*n as u32).map(|t| (i as u32 * 31 + t * 7) % 1000).collect::<Vec<u32>>();
        let prompted = |of: (usize, &usize)| Prompted::new(ids(of), vec![*of.1 - 1]);
        let prompts: Vec<Prompted> = lengths.iter().enumerate().map(prompted).collect();
        let weights = [(6, 1.0), (5, -1.0)].into();
        let targets = vec![Target::Weights(weights); prompts.len()];
        let options = attributing(Unit::Head, Positions::Last).options;
        let place = Place { model: &model, pool: &pool, memory_limit: None };
        let attribute =
            || with_job(|job| run::attribute(&place, &prompts, &targets, &options, 1 << 15, job)).map(drop).unwrap();
        attribute(); // what is made once for a model is there now
        let needed = memory::forward_on_gpu(&config, &lengths, prompts.len(), model.dtype())
            + memory::attributing(&config, Unit::Head, prompts.len())
            + 2 * memory::attributed(&config, Unit::Head, prompts.len());
        let taken = peak(attribute);
        println!("{name} in plain operations, {dtype}: {taken} of {needed} bytes, {:.2}", taken as f64 / needed as f64);
        assert!(taken <= needed && needed <= 8 * taken, "{name}, {dtype}: {taken} of {needed}");
    }
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn no_call_takes_more_than_it_says() {
    let sizes = [(32, 128), (96, 384), (128, 512), (64, 256), (101, 3001)];
    let config = object!({ "n_embd": 128, "n_positions": 256, "n_ctx": 256, "vocab_size": 3001 });
    let gpt2 = enlarged("gpt2", &sizes, config);
    check("gpt2", &gpt2, 128);
    check_plain("gpt2", &gpt2);
    let sizes = [(32, 128), (72, 288), (144, 576), (16, 64), (101, 3001)];
    let config = object!({ "hidden_size": 128, "intermediate_size": 288, "vocab_size": 3001,
        "max_position_embeddings": 256 });
    let mixtral = enlarged("parity/mixtral", &sizes, config);
    check("mixtral", &mixtral, 128);
    check_plain("mixtral", &mixtral);
}
