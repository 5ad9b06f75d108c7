//! A directory of safetensors as named tensors: limits, index, shards, conversion to f32. Reads; computes nothing.

mod file;
mod foreign;
mod header;
mod hub;
mod index;
mod place;

pub use file::{StoredFile, read_small};
pub use foreign::check_format;
pub use header::{Dtype, Header, TensorEntry};
pub use hub::locate;
pub use place::{Axis, Matrix};

use crate::error::{PrismError, Result, is_code};
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
        check_format(dir)?;
        let shards = index::shards(dir)?;
        for name in shards.files() {
            let file = StoredFile::open(dir, name)?;
            let header = Header::read(&file)?;
            shards.check(name, &header)?;
            let position = checkpoint.files.len();
            // no shard holds a tensor of another one: the index names one for each, and agrees with every header
            checkpoint.tensors.extend(header.tensors.into_iter().map(|(name, entry)| (name, (position, entry))));
            checkpoint.files.push(file);
        }
        Ok(checkpoint)
    }

    /// Whether a tensor of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor as a matrix that can be read, once type and shape are what they should be.
    ///
    /// # Errors
    /// `TENSOR_MISSING`, `TENSOR_DTYPE`, `TENSOR_SHAPE`.
    pub fn matrix(&self, name: &str, shape: &[usize]) -> Result<Matrix<'_>> {
        let Some((file, entry)) = self.tensors.get(name) else { return Err(self.missing(name, shape)) };
        let Some(dtype) = Dtype::by_name(&entry.dtype) else {
            return Err(PrismError::TensorDtype { tensor: name.into(), found: entry.dtype.clone() });
        };
        if entry.shape != shape {
            let (found, expected) = (entry.shape.clone(), shape.into());
            return Err(PrismError::TensorShape { tensor: name.into(), found, expected });
        }
        self.consumed().insert(name.into());
        let columns = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().rev().skip(1).product();
        Ok(Matrix { file: &self.files[*file], dtype, start: entry.range.start, rows, columns })
    }

    /// Why a tensor is not there. Quantised weights lie under longer names (`x.qweight`, `x_blocks`) as other types:
    /// then the type is the reason.
    fn missing(&self, name: &str, shape: &[usize]) -> PrismError {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let longer = self.tensors.range(stem.to_string()..).take_while(|(other, _)| other.starts_with(stem));
        match longer.map(|(other, (_, entry))| (other, &entry.dtype)).find(|(_, dtype)| is_code(dtype)) {
            Some((tensor, found)) => PrismError::TensorDtype { tensor: tensor.clone(), found: found.clone() },
            None => PrismError::TensorMissing { tensor: name.into(), expected: shape.into() },
        }
    }

    /// That nothing was left over but tensors that hold no weights.
    ///
    /// # Errors
    /// `TENSOR_UNEXPECTED`.
    pub fn check_all_used(&self, is_harmless: impl Fn(&str) -> bool) -> Result<()> {
        let consumed = self.consumed();
        let left = |name: &&String| !consumed.contains(*name) && !is_harmless(name);
        let tensors: Vec<String> = self.tensors.keys().filter(left).cloned().collect();
        if tensors.is_empty() { Ok(()) } else { Err(PrismError::TensorUnexpected { tensors }) }
    }

    /// That no file has changed since it was opened.
    ///
    /// # Errors
    /// `CHECKPOINT_INVALID`, `IO_ERROR`.
    pub fn check_unchanged(&self) -> Result<()> {
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
