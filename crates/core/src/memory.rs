//! How much memory can be taken, and how much a run will take: a refusal with both figures beats the kernel's killer.

use crate::attribution::{Component, Unit};
use crate::chunk::Prompted;
use crate::config::{MlpKind, ModelConfig};
use crate::device;
use crate::error::{PrismError, Result};
use crate::hook::{Dim, HookPoint};
use crate::intervene::Edit;
use crate::model::Transformer;
use crate::ops::MOST_SCORES;
use candle_core::{DType, Device};
use std::fs::read_to_string;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that can be taken now: what the system has available, less where the control group or `limit` allows less.
/// `None` where the system does not tell and there is no limit.
pub fn available(limit: Option<u64>) -> Option<u64> {
    [system_available(), group_available(), limit].into_iter().flatten().min()
}

/// That `needed` bytes can be taken.
///
/// # Errors
/// `MEMORY`.
pub fn check(purpose: &str, needed: u64, limit: Option<u64>) -> Result<()> {
    fits(purpose, needed, available(limit))
}

fn fits(purpose: &str, needed: u64, available: Option<u64>) -> Result<()> {
    match available {
        Some(available) if needed > available => Err(PrismError::Memory { purpose: purpose.into(), needed, available }),
        _ => Ok(()),
    }
}

/// Bytes that can be taken now where a device computes: its own memory, or the system's.
///
/// # Errors
/// `INTERNAL` where a GPU's driver does not answer.
pub fn available_on(device: &Device, limit: Option<u64>) -> Result<Option<u64>> {
    Ok(match device::free_bytes(device)? {
        None => available(limit),
        Some(free) => Some(limit.map_or(free, |limit| limit.min(free))),
    })
}

/// That `needed` bytes can be taken there.
///
/// # Errors
/// `MEMORY`, and as [`available_on`].
pub fn check_on(device: &Device, purpose: &str, needed: u64, limit: Option<u64>) -> Result<()> {
    fits(purpose, needed, available_on(device, limit)?)
}

/// Asks the system to keep a buffer that is still to be written in pages of 2 MiB: reading weights once then takes two
/// thirds of the time (measured: 31 instead of 21 GB/s on two cores). Where it cannot, nothing changes.
pub fn in_large_pages(buffer: &[f32]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        // whole pages around it, for most buffers begin and end within one; what lies beside is weights as well
        let start = buffer.as_ptr().addr() / PAGE * PAGE;
        let end = (buffer.as_ptr().addr() + size_of_val(buffer)).next_multiple_of(PAGE);
        if size_of_val(buffer) >= PAGE / 2 {
            // SAFETY: advice about how pages are backed; what they hold does not change, whoever holds it
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = buffer;
}

/// Bytes that results hold outside the JavaScript heap, of one session.
#[derive(Debug, Default, Clone)]
pub struct Holdings(Arc<AtomicU64>);

/// Some of them, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    bytes: u64,
    holdings: Holdings,
}

impl Holdings {
    /// Adds `bytes`.
    pub fn hold(&self, bytes: u64) -> Held {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Held { bytes, holdings: self.clone() }
    }

    /// All that is held now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holdings.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Peak bytes of one forward pass over prompts of these lengths: the widest moment of a block (stream, norm, queries,
/// keys, values and z of all rows; scores, pattern and one temporary of the longest prompt; or the MLP's hidden
/// layers, gate and up where it has them), and what is kept per wanted row (z and MLP output of every layer).
pub fn forward(config: &ModelConfig, lengths: &[usize], kept_rows: usize) -> u64 {
    let rows: usize = lengths.iter().sum();
    let longest = lengths.iter().max().copied().unwrap_or(0);
    let (d, z) = (config.d_model, config.n_heads * config.d_head);
    let attention = rows * (4 * d + 6 * z) + 3 * config.n_heads * longest * longest;
    let hidden = if config.mlp == MlpKind::Plain { 3 } else { 5 };
    let shared = if let MlpKind::Experts { shared: Some(width), .. } = config.mlp { width } else { 0 };
    let mlp = rows * (5 * d + hidden * config.d_mlp.max(config.d_mlp_dense).max(shared));
    let kept = kept_rows * (config.n_layers * (z + d) + 6 * d);
    4 * (attention.max(mlp) + kept) as u64
}

/// Peak bytes of one forward pass in plain operations on a GPU, where weights are of `weights`: as [`forward`], with the
/// scores of many prompts at once, every operation's temporaries beside them, and what products are cast from and to. Then
/// what attribution widens: the largest matrix of a block, or the tokens of the vocabulary that are read together.
pub fn forward_on_gpu(config: &ModelConfig, lengths: &[usize], kept_rows: usize, weights: DType) -> u64 {
    let rows: usize = lengths.iter().sum();
    let squares: usize = lengths.iter().map(|n| n * n * config.n_heads).sum();
    let longest = lengths.iter().max().copied().unwrap_or(0);
    let scores = squares.min(MOST_SCORES.max(config.n_heads * longest * longest));
    let (d, z) = (config.d_model, config.n_heads * config.d_head);
    let shared = if let MlpKind::Experts { shared: Some(width), .. } = config.mlp { width } else { 0 };
    let hidden = config.d_mlp.max(config.d_mlp_dense).max(shared);
    let attention = rows * (6 * d + 10 * z) + 4 * scores;
    let mlp = rows * (8 * d + 7 * hidden);
    let kept = kept_rows * (config.n_layers * (z + d) + 6 * d);
    let widened = if weights == DType::F32 { 0 } else { (2 * hidden).max(8192).max(3 * z) * d };
    4 * (attention.max(mlp) + kept + widened) as u64
}

/// Peak bytes of one forward pass of a model, where it computes.
pub fn forward_of(model: &Transformer, lengths: &[usize], kept_rows: usize) -> u64 {
    match model.device.is_cpu() {
        true => forward(&model.config, lengths, kept_rows),
        false => forward_on_gpu(&model.config, lengths, kept_rows, model.dtype()),
    }
}

/// Bytes of these points at `kept` positions of a prompt of `length` tokens.
pub fn observed<'a>(
    config: &ModelConfig,
    points: impl IntoIterator<Item = &'a HookPoint>,
    kept: usize,
    length: usize,
) -> u64 {
    points.into_iter().map(|point| 4 * shape(config, *point, kept, length).iter().product::<usize>() as u64).sum()
}

/// The shape of a point's values at `kept` positions of a prompt of `length` tokens.
pub fn shape(config: &ModelConfig, point: HookPoint, kept: usize, length: usize) -> Vec<usize> {
    let size = |dim: &Dim| match dim {
        Dim::Pos | Dim::QueryPos => kept,
        Dim::KeyPos => length,
        Dim::Head => config.n_heads,
        Dim::KvHead => config.n_key_value_heads,
        Dim::DHead => config.d_head,
        Dim::DModel => config.d_model,
        Dim::DMlp => point.layer().map_or(config.d_mlp, |l| config.mlp_of(l).1),
        Dim::Expert => {
            if let MlpKind::Experts { n_experts, .. } = config.mlp {
                n_experts
            } else {
                0
            }
        }
        Dim::One => 1,
    };
    point.dims().iter().map(size).collect()
}

/// Bytes of the copies in which a prompt's edits are made, at the widest point.
pub(crate) fn changed(config: &ModelConfig, prompt: &Prompted) -> u64 {
    let length = prompt.ids.len();
    let of = |edit: &Edit| {
        // what single heads read is formed where it is set; another value is copied whole, behind what it was
        let is_receiver = matches!(edit.point, HookPoint::Block(_, point) if point.is_receiver());
        let kept = if is_receiver { edit.positions.len() } else { length };
        3 * observed(config, [&edit.point], kept, length)
    };
    prompt.edits.iter().map(of).max().unwrap_or(0)
}

/// Bytes of an attribution: its values, and what else there is of each row, its target and certificate above all.
pub fn attributed(config: &ModelConfig, unit: Unit, rows: usize) -> u64 {
    const OF_ROW: usize = 512;
    (rows * (4 * Component::count(unit, config) + OF_ROW)) as u64
}

/// Bytes beside those while one layer's activations are read along the directions, in f64; a forward pass takes more.
pub fn reading(config: &ModelConfig, rows: usize) -> u64 {
    let widest = (config.n_heads * config.d_head).max(config.d_model).max(config.d_mlp).max(config.d_mlp_dense);
    24 * (rows * widest) as u64
}

/// Bytes of a chunk's values while they are computed, column by column in f64, and of a row of them.
pub fn attributing(config: &ModelConfig, unit: Unit, rows: usize) -> u64 {
    let fine = if unit == Unit::Neuron { unit } else { Unit::Head };
    8 * (rows + 1) as u64 * Component::count(fine, config) as u64
}

fn system_available() -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// What the control group leaves (version 2, then version 1); page cache that can be dropped counts as used there, so
/// it is taken off.
fn group_available() -> Option<u64> {
    let number = |path: &str| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = |max: &str, used: &str, stat: &str| {
        let text = read_to_string(stat).ok()?;
        let cache =
            text.lines().find_map(|line| line.strip_prefix("inactive_file ")).and_then(|n| n.trim().parse().ok());
        let used = number(used)?.saturating_sub(cache.unwrap_or(0));
        Some(number(max)?.saturating_sub(used))
    };
    let v2 = "/sys/fs/cgroup/memory";
    let v1 = "/sys/fs/cgroup/memory/memory";
    group(&format!("{v2}.max"), &format!("{v2}.current"), &format!("{v2}.stat"))
        .or_else(|| group(&format!("{v1}.limit_in_bytes"), &format!("{v1}.usage_in_bytes"), &format!("{v1}.stat")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_and_both_figures_are_named() {
        assert!(available(Some(1000)).unwrap() <= 1000);
        check("a test", 1000, Some(1000)).unwrap();
        let error = check("a test", 1001, Some(1000)).unwrap_err();
        assert_eq!(error.details(), serde_json::json!({ "purpose": "a test", "needed": 1001, "available": 1000 }));
    }

    #[test]
    fn what_is_held_is_given_back() {
        let holdings = Holdings::default();
        let first = holdings.hold(100);
        let second = holdings.hold(20);
        assert_eq!(holdings.bytes(), 120);
        drop(first);
        assert_eq!(holdings.bytes(), 20);
        drop(second);
        assert_eq!(holdings.bytes(), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_what_is_available() {
        let bytes = system_available().unwrap();
        assert!(bytes > 1 << 20 && bytes < 1 << 50, "{bytes}");
    }
}
