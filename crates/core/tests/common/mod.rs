//! What the integration tests share: sessions on the fixtures, comparison, and checkpoints written for one test.
#![allow(dead_code)] // every test binary uses a part

pub mod tokenizers;

use candle_core::{Device, Tensor};
use logit_prism_core::attribution::{Against, Answer, Attribution, OnViolation, Options, Target, Unit};
use logit_prism_core::cache::{Cache, Logits};
use logit_prism_core::cancel::Cancel;
use logit_prism_core::device::{self, DeviceName};
use logit_prism_core::hook::HookPoint;
use logit_prism_core::ops::Kernels;
use logit_prism_core::rows::Positions;
use logit_prism_core::run::Job;
use logit_prism_core::session::{Asked, Call, LoadOptions, RunCall, Session};
use logit_prism_core::tokenizer::{Prompt, Token};
use logit_prism_core::{PrismError, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/fixtures").join(name)
}

/// Every family of test/fixtures/parity, by name.
pub fn parity_families() -> Vec<String> {
    let entries = std::fs::read_dir(fixture("parity")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn with_job<T>(f: impl FnOnce(&Job) -> T) -> T {
    f(&Job { cancel: &Cancel::default(), progress: &|_, _| {} })
}

/// On the CPU with the kernels of this machine; with `pretend-gpu` on the GPU that is none, so that every test runs there.
pub fn load(dir: &Path) -> Result<Session> {
    let device = test_gpu().filter(|_| cfg!(feature = "pretend-gpu")).unwrap_or_default();
    load_with(dir, &LoadOptions { device, threads: Some(2), ..LoadOptions::default() })
}

/// On the CPU with the kernels of this machine, and on a GPU where there is one.
pub fn load_on_devices(dir: &Path) -> Vec<Result<Session>> {
    let with = |device| load_with(dir, &LoadOptions { device, threads: Some(2), ..LoadOptions::default() });
    std::iter::once(DeviceName::Cpu).chain(test_gpu()).map(with).collect()
}

/// With the kernels of this machine and with candle's operations.
pub fn load_both(dir: &Path) -> [Result<Session>; 2] {
    let with = |kernels| load_with(dir, &LoadOptions { threads: Some(2), kernels, ..LoadOptions::default() });
    [with(Kernels::default()), with(Kernels::Plain)]
}

/// Those two, and one on a GPU: the same tests for every device.
pub fn load_everywhere(dir: &Path) -> Vec<Result<Session>> {
    let with = |device| load_with(dir, &LoadOptions { device, threads: Some(2), ..LoadOptions::default() });
    load_both(dir).into_iter().chain(test_gpu().map(with)).collect()
}

/// The GPU that tests run on besides: where there is one, and this was built with the feature `cuda`; or with
/// `pretend-gpu` one that is none.
pub fn test_gpu() -> Option<DeviceName> {
    if cfg!(feature = "pretend-gpu") {
        return Some(DeviceName::Cuda(0));
    }
    let found = cfg!(feature = "cuda").then(|| device::gpu(None).ok()).flatten();
    found.map(|gpu| DeviceName::Cuda(gpu.ordinal))
}

pub fn load_with(dir: &Path, options: &LoadOptions) -> Result<Session> {
    with_job(|job| Session::load(dir, options, job))
}

/// The error of an outcome that must be one.
#[track_caller]
pub fn error<T>(outcome: Result<T>) -> PrismError {
    match outcome {
        Ok(_) => panic!("expected an error"),
        Err(error) => error,
    }
}

/// The error of loading a directory.
pub fn refusal(dir: &Path) -> PrismError {
    load(dir).err().unwrap_or_else(|| panic!("{} was loaded", dir.display()))
}

/// The logit difference of two tokens.
pub fn pair(answer: u64, against: u64) -> Target<Token> {
    let against = Some(Against::Tokens(vec![Token::Id(against as u32)]));
    Target::Tokens { answer: Answer::Tokens(vec![Token::Id(answer as u32)]), against }
}

/// The last positions of some prompts.
pub fn asked(prompts: Vec<Vec<u32>>) -> Asked {
    let prompts = prompts.into_iter().map(Prompt::Ids).collect();
    Asked { prompts, positions: Positions::Last, prepend_bos: None, chunk_tokens: None }
}

pub fn call(prompts: Vec<Vec<u32>>, targets: Vec<Target<Token>>) -> Call {
    Call {
        asked: asked(prompts),
        targets,
        options: Options {
            unit: Unit::Head,
            top: None,
            convention: Default::default(),
            norm: None,
            on_violation: OnViolation::Throw,
        },
    }
}

/// A run of one prompt that keeps points at every position, and the last logits.
pub fn observe(session: &Session, prompt: Vec<u32>, points: &[HookPoint]) -> Result<Cache> {
    let asked = Asked { positions: Positions::All, ..asked(vec![prompt]) };
    let points = points.iter().map(HookPoint::to_string).collect();
    with_job(|job| session.run(&RunCall { asked, points, logits: Logits::Last }, job))
}

pub fn attribute(session: &Session, call: &Call) -> Result<Attribution> {
    with_job(|job| session.attribute(call, job)).map(|(_, attribution)| attribution)
}

/// Prompts and the pair of every prompt, from a reference.json.
pub fn reference_call(reference: &Value) -> Call {
    let prompts = ids(&reference["prompts"]);
    let targets = (0..prompts.len())
        .map(|i| pair(reference["answer"][i].as_u64().unwrap(), reference["against"][i].as_u64().unwrap()));
    call(prompts, targets.collect())
}

pub fn ids(value: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Every number below a value, in order.
pub fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        Value::Number(n) => vec![n.as_f64().unwrap()],
        _ => Vec::new(),
    }
}

/// Panics unless every number is within `tolerance (1 + |expected|)`; returns the largest of those ratios.
#[track_caller]
pub fn close(what: &str, found: impl IntoIterator<Item = f64>, expected: &[f64], tolerance: f64) -> f64 {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    assert!(!found.is_empty(), "{what}: nothing to compare");
    let mut worst = 0f64;
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let error = if f == e { 0.0 } else { (f - e).abs() / (1.0 + e.abs()) };
        assert!(error <= tolerance, "{what}: element {i} is {f}, expected {e}");
        worst = worst.max(error);
    }
    worst
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// The elements of a tensor, row-major.
pub fn flat(tensor: &Tensor) -> Vec<f64> {
    let here = device::moved(tensor, &Device::Cpu).unwrap();
    wide(&here.flatten_all().unwrap().to_vec1::<f32>().unwrap())
}

/// The columns of one row of a result.
pub fn row_of(result: &Attribution, row: usize) -> &[f32] {
    let n = result.values.len() / result.rows.len();
    &result.values[row * n..(row + 1) * n]
}

/// Panics unless two rows are the same up to `1e-5 (1 + A)`, the promise for another batch or number of threads.
#[track_caller]
pub fn same_row(what: &str, a: (&Attribution, usize), b: (&Attribution, usize)) {
    let ((a, i), (b, j)) = (a, b);
    let size = 1.0 + row_of(b, j).iter().map(|v| f64::from(v.abs())).sum::<f64>();
    let all = |r: &Attribution, i: usize| {
        let certificate = r.certificates[i];
        let mut all = wide(row_of(r, i));
        all.extend([r.constant[i], certificate.measured, certificate.total]);
        all
    };
    let (a_row, b_row) = (all(a, i), all(b, j));
    assert_eq!(a_row.len(), b_row.len(), "{what}: number of columns");
    for (c, (x, y)) in a_row.iter().zip(&b_row).enumerate() {
        assert!((x - y).abs() <= 1e-5 * size, "{what}: column {c} is {x}, expected {y}");
    }
}

/// The columns of `Unit::Layer`, summed here from those of a reference: embeddings, then heads + bias and MLP.
pub fn layer_columns(reference: &Value, at: impl Fn(&Value) -> f64) -> Vec<f64> {
    let mut columns = vec![at(&reference["embed"]), at(&reference["pos_embed"])];
    for (l, heads) in reference["head"].as_array().unwrap().iter().enumerate() {
        let heads: f64 = heads.as_array().unwrap().iter().map(&at).sum();
        columns.extend([heads + at(&reference["attn_bias"][l]), at(&reference["mlp"][l])]);
    }
    columns
}

/// The columns of `Unit::Head` at one row of a reference: embeddings, then heads, bias and MLP layer by layer. `at`
/// picks the row from whatever the reference holds per component.
pub fn head_columns(reference: &Value, at: impl Fn(&Value) -> f64) -> Vec<f64> {
    let mut columns = vec![at(&reference["embed"]), at(&reference["pos_embed"])];
    for (l, heads) in reference["head"].as_array().unwrap().iter().enumerate() {
        columns.extend(heads.as_array().unwrap().iter().map(&at));
        columns.push(at(&reference["attn_bias"][l]));
        columns.push(at(&reference["mlp"][l]));
    }
    columns
}

/// A directory that is removed at the end of the test.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("logit-prism-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    /// A copy of a fixture's files.
    pub fn copy_of(name: &str) -> Self {
        let dir = Self::new();
        for entry in std::fs::read_dir(fixture(name)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), dir.0.join(entry.file_name())).unwrap();
        }
        dir
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.join(name), bytes).unwrap();
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A safetensors file taken apart: every tensor's type, shape and bytes.
pub type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

pub fn read_tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let entry = |(name, value): (String, Value)| {
        let offset = |i: usize| 8 + length + value["data_offsets"][i].as_u64().unwrap() as usize;
        let shape = serde_json::from_value(value["shape"].clone()).unwrap();
        (name, (value["dtype"].as_str().unwrap().into(), shape, bytes[offset(0)..offset(1)].to_vec()))
    };
    header.into_iter().filter(|(name, _)| name != "__metadata__").map(entry).collect()
}

pub fn write_tensors(path: &Path, tensors: &Tensors) {
    write_tensors_with(path, tensors, &BTreeMap::new());
}

/// The same, with texts beside the tensors.
pub fn write_tensors_with(path: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    for (name, (dtype, shape, bytes)) in tensors {
        let range = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": range }));
        data.extend(bytes);
    }
    write_raw(path, &serde_json::to_vec(&header).unwrap(), &data);
}

/// A copy of a fixture whose `model.safetensors` is changed.
pub fn changed(name: &str, f: impl FnOnce(&mut Tensors)) -> TempDir {
    let dir = TempDir::copy_of(name);
    let mut tensors = read_tensors(&dir.join("model.safetensors"));
    f(&mut tensors);
    write_tensors(&dir.join("model.safetensors"), &tensors);
    dir
}

/// The texts beside the tensors of a safetensors file.
pub fn metadata(path: &Path) -> BTreeMap<String, String> {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    serde_json::from_value(header["__metadata__"].clone()).unwrap()
}

/// The values of an F32, F64 or I32 tensor.
pub fn stored(tensors: &Tensors, name: &str) -> Vec<f64> {
    let (dtype, _, bytes) = tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
    match dtype.as_str() {
        "F32" => bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        "I32" => bytes.chunks_exact(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap()))).collect(),
        "F64" => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        other => panic!("{name} is stored as {other}"),
    }
}

/// A file of any header and any data.
pub fn write_raw(path: &Path, header: &[u8], data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    std::fs::write(path, bytes).unwrap();
}

/// Changes the values of an F32 tensor in place.
pub fn edit(tensors: &mut Tensors, name: &str, f: impl FnOnce(&mut Vec<f32>)) {
    let bytes = &mut tensors.get_mut(name).unwrap_or_else(|| panic!("no tensor {name}")).2;
    let mut values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    f(&mut values);
    *bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
}
