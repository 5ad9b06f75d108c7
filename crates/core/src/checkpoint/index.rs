//! Which files a checkpoint consists of: one `model.safetensors`, or the shards that `model.safetensors.index.json` names.

use super::Header;
use super::file::{invalid, read_small};
use crate::error::{PrismError, Result};
use crate::strict_json::UniqueMap;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
const MAX_INDEX: u64 = 16 << 20;

/// The files of a checkpoint and, for shards, which tensors each must hold.
pub(super) struct Shards {
    index: PathBuf,
    tensors: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Deserialize)]
struct RawIndex {
    #[serde(default)]
    #[allow(dead_code)] // total_size and the like: nothing here depends on it
    metadata: Value,
    weight_map: UniqueMap<String>,
}

/// Finds the files of a directory.
pub(super) fn shards(dir: &Path) -> Result<Shards> {
    let has = |name: &str| std::fs::symlink_metadata(dir.join(name)).is_ok();
    if has(SINGLE) {
        return Ok(Shards { index: dir.join(SINGLE), tensors: BTreeMap::from([(SINGLE.into(), BTreeSet::new())]) });
    }
    if has(INDEX) {
        return read_index(&dir.join(INDEX));
    }
    std::fs::read_dir(dir).map_err(PrismError::io(dir, "read the directory"))?;
    Err(PrismError::CheckpointMissing { path: dir.display().to_string(), missing: SINGLE.into() })
}

fn read_index(path: &Path) -> Result<Shards> {
    let bytes = read_small(path, MAX_INDEX, |found| invalid(path, found, "at most 16 MiB"))?;
    let raw: RawIndex = serde_json::from_slice(&bytes)
        .map_err(|e| invalid(path, format!("an index that is not readable ({e})"), "an object with a weight_map"))?;
    let mut tensors = BTreeMap::<String, BTreeSet<String>>::new();
    for (tensor, file) in raw.weight_map.0 {
        if !is_plain_name(&file) {
            return Err(invalid(
                path,
                format!("the shard name {file:?}"),
                "a plain name like model-00001-of-00002.safetensors",
            ));
        }
        tensors.entry(file).or_default().insert(tensor);
    }
    if tensors.is_empty() {
        return Err(invalid(path, "an empty weight_map", "at least one tensor"));
    }
    Ok(Shards { index: path.into(), tensors })
}

/// `[A-Za-z0-9._-]+.safetensors`: no path, so nothing outside the directory can be named.
fn is_plain_name(name: &str) -> bool {
    let stem = name.strip_suffix(".safetensors").unwrap_or_default();
    !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl Shards {
    pub(super) fn files(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }

    /// Index and header agree both ways.
    pub(super) fn check(&self, file: &str, header: &Header) -> Result<()> {
        if file == SINGLE {
            return Ok(());
        }
        let found: BTreeSet<_> = header.tensors.keys().cloned().collect();
        match found.symmetric_difference(&self.tensors[file]).next() {
            None => Ok(()),
            Some(t) if found.contains(t) => {
                Err(invalid(&self.index, format!("tensor {t} of {file} not listed"), "every tensor of every shard"))
            }
            Some(t) => Err(invalid(
                &self.index,
                format!("tensor {t}, which {file} does not hold"),
                "only tensors that are there",
            )),
        }
    }
}
