//! A directory of safetensors as named tensors: limits, index, shards, conversion to f32. Reads; computes nothing.

mod file;
mod header;
mod hub;
mod index;

pub use file::{StoredFile, read_small};
pub use header::{Dtype, Header, TensorEntry};
pub use hub::locate;

use crate::error::{PrismError, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The opened files of a checkpoint and where each tensor lies in them.
pub struct Checkpoint {
    files: Vec<StoredFile>,
    tensors: BTreeMap<String, (usize, TensorEntry)>,
    consumed: Mutex<BTreeSet<String>>,
}

impl Checkpoint {
    /// Opens the safetensors files of a directory and reads their headers.
    ///
    /// # Errors
    /// `CHECKPOINT_MISSING` where there are none, `PICKLE_REFUSED` where there are only pickles, `CHECKPOINT_INVALID`
    /// where a rule about files, headers or the index is broken, `IO_ERROR`.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut checkpoint = Checkpoint { files: Vec::new(), tensors: BTreeMap::new(), consumed: Mutex::default() };
        let shards = index::shards(dir)?;
        for name in shards.files() {
            let file = StoredFile::open(dir, name)?;
            let header = Header::read(&file)?;
            shards.check(name, &header)?;
            let position = checkpoint.files.len();
            for (tensor, entry) in header.tensors {
                if checkpoint.tensors.insert(tensor.clone(), (position, entry)).is_some() {
                    return Err(file.invalid(format!("tensor {tensor} stands in two shards"), "each tensor once"));
                }
            }
            checkpoint.files.push(file);
        }
        Ok(checkpoint)
    }

    /// Whether a tensor of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor's values in f32 (F16 and BF16 convert exactly), row-major. Its shape is compared before anything is
    /// allocated.
    ///
    /// # Errors
    /// `TENSOR_MISSING`, `TENSOR_SHAPE`, `TENSOR_DTYPE`, `IO_ERROR`.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Some((file, entry)) = self.tensors.get(name) else {
            return Err(PrismError::TensorMissing { tensor: name.into(), expected: shape.into() });
        };
        if entry.shape != shape {
            let (found, expected) = (entry.shape.clone(), shape.into());
            return Err(PrismError::TensorShape { tensor: name.into(), found, expected });
        }
        let Some(dtype) = Dtype::by_name(&entry.dtype) else {
            return Err(PrismError::TensorDtype { tensor: name.into(), found: entry.dtype.clone() });
        };
        self.consumed().insert(name.into());
        self.files[*file].read_f32(entry.range.clone(), dtype)
    }

    /// Bytes of all weights in f32.
    pub fn weight_bytes(&self, is_harmless: impl Fn(&str) -> bool) -> u64 {
        let weights = self.tensors.iter().filter(|(name, _)| !is_harmless(name));
        weights.map(|(_, (_, entry))| 4 * entry.shape.iter().product::<usize>() as u64).sum()
    }

    /// Ends loading: nothing may be left over but tensors that hold no weights, and no file may have changed meanwhile.
    ///
    /// # Errors
    /// `TENSOR_UNEXPECTED`, `CHECKPOINT_INVALID`.
    pub fn finish(&self, is_harmless: impl Fn(&str) -> bool) -> Result<()> {
        let consumed = self.consumed();
        let left = |name: &&String| !consumed.contains(*name) && !is_harmless(name);
        let tensors: Vec<String> = self.tensors.keys().filter(left).cloned().collect();
        if !tensors.is_empty() {
            return Err(PrismError::TensorUnexpected { tensors });
        }
        self.files.iter().try_for_each(StoredFile::check_unchanged)
    }

    fn consumed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.consumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SHA-256 over `config` (the bytes of config.json) and every file, names and lengths included, as 64 hex digits.
    ///
    /// # Errors
    /// `CHECKPOINT_INVALID` where a file is not what it was when it was opened, `IO_ERROR`.
    pub fn fingerprint(&self, config: &[u8]) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(config.len().to_le_bytes());
        hash.update(config);
        for file in &self.files {
            hash.update(file.name.len().to_le_bytes());
            hash.update(file.name.as_bytes());
            hash.update(file.length.to_le_bytes());
            file.blocks(0..file.length, |block| hash.update(block))?;
            file.check_unchanged()?;
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}
