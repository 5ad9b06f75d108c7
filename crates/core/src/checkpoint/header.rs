//! The header of a safetensors file: <https://github.com/huggingface/safetensors#format>. Eight bytes of length, a JSON
//! object of entries, the data. Everything in it is checked before it is used.

use super::file::StoredFile;
use super::foreign::recognised;
use crate::error::Result;
use crate::strict_json::UniqueMap;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;

const MAX_HEADER: u64 = 16 << 20;
const MAX_TENSORS: usize = 65_536;
const MAX_NAME: usize = 512;
const MAX_RANK: usize = 8;
const MAX_DIM: usize = 1 << 40;

/// A stored number type that weights may have. Other types may stand in a file (masks), but are never converted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
}

impl Dtype {
    /// By its name in a header.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Dtype::F32),
            "F16" => Some(Dtype::F16),
            "BF16" => Some(Dtype::BF16),
            _ => None,
        }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
        }
    }

    /// Appends the numbers of a block (a whole count of them, little-endian) as f32. Exact: f32 holds every value of
    /// the smaller types.
    pub fn extend_f32(self, block: &[u8], out: &mut Vec<f32>) {
        match self {
            Dtype::F32 => out.extend(block.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Dtype::F16 => out.extend(block.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32())),
            Dtype::BF16 => out.extend(block.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32())),
        }
    }
}

/// Bits of one number of every type that the format knows; `None` for a name that it does not.
fn bits(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// Where one tensor lies.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorEntry {
    /// Type as the header names it.
    pub dtype: String,
    /// Shape; its product fits the range.
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub range: Range<u64>,
}

/// A checked header.
#[derive(Debug)]
pub struct Header {
    /// Every tensor by name.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// Texts beside them.
    pub metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawValue {
    Tensor(RawEntry),
    Metadata(BTreeMap<String, String>),
}

impl Header {
    /// Reads and checks the header of a file.
    ///
    /// # Errors
    /// `CHECKPOINT_INVALID` where a rule is broken, `IO_ERROR`.
    pub fn read(file: &StoredFile) -> Result<Self> {
        if file.length < 8 {
            return Err(file.invalid(format!("{} bytes", file.length), "at least the 8 bytes of a header's length"));
        }
        let mut length = [0; 8];
        file.read_at(&mut length, 0)?;
        let length = u64::from_le_bytes(length);
        let limit = MAX_HEADER.min(file.length - 8);
        if length > limit {
            let other = || file.invalid(format!("a header of {length} bytes"), format!("at most {limit}"));
            return Err(recognised(file).unwrap_or_else(other)); // no other format begins with so small a number
        }
        let mut json = vec![0; length as usize];
        file.read_at(&mut json, 8)?;
        let entries = serde_json::from_slice::<UniqueMap<RawValue>>(&json)
            .map_err(|e| file.invalid(format!("a header that is not readable ({e})"), "a JSON object of tensors"))?;

        let (mut tensors, mut metadata) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in entries.0 {
            match value {
                RawValue::Metadata(texts) if name == "__metadata__" => metadata = texts,
                RawValue::Tensor(raw) if name != "__metadata__" => {
                    check_name(file, &name)?;
                    let entry = check_entry(file, &name, raw, 8 + length)?;
                    tensors.insert(name, entry);
                }
                _ => return Err(file.invalid(format!("the entry {name:?}"), "a tensor, or texts in __metadata__")),
            }
        }
        if tensors.len() > MAX_TENSORS {
            return Err(file.invalid(format!("{} tensors", tensors.len()), format!("at most {MAX_TENSORS}")));
        }
        check_contiguous(file, &tensors, 8 + length)?;
        Ok(Header { tensors, metadata })
    }
}

fn check_name(file: &StoredFile, name: &str) -> Result<()> {
    let printable = name.chars().all(|c| !c.is_control());
    if !name.is_empty() && name.len() <= MAX_NAME && printable {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    Err(file.invalid(format!("the tensor name {shown:?}"), format!("1 to {MAX_NAME} printable bytes")))
}

fn check_entry(file: &StoredFile, name: &str, raw: RawEntry, data: u64) -> Result<TensorEntry> {
    let RawEntry { dtype, shape, data_offsets: [start, end] } = raw;
    if shape.len() > MAX_RANK || shape.iter().any(|dim| *dim > MAX_DIM) {
        let expected = format!("at most {MAX_RANK} dimensions of at most {MAX_DIM}");
        return Err(file.invalid(format!("tensor {name} of shape {shape:?}"), expected));
    }
    let Some(bits) = bits(&dtype) else {
        return Err(file.invalid(format!("tensor {name} of type {dtype:?}"), "a type of the safetensors format"));
    };
    let elements = shape.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    let bytes = elements.and_then(|n| n.checked_mul(bits)).filter(|b| b % 8 == 0).map(|b| (b / 8) as u64);
    if bytes.is_none() || start.checked_add(bytes.unwrap_or(0)) != Some(end) {
        let found = format!("tensor {name} of type {dtype} and shape {shape:?} at bytes {start}..{end}");
        return Err(file.invalid(found, "a range as long as type and shape say"));
    }
    let (Some(start), Some(end)) = (data.checked_add(start), data.checked_add(end)) else {
        return Err(file.invalid(format!("tensor {name} at bytes {start}..{end}"), "a range inside the file"));
    };
    Ok(TensorEntry { dtype, shape, range: start..end })
}

/// The ranges follow each other without a hole or an overlap, from the end of the header to the end of the file.
fn check_contiguous(file: &StoredFile, tensors: &BTreeMap<String, TensorEntry>, data: u64) -> Result<()> {
    let mut ranges: Vec<_> = tensors.iter().map(|(name, t)| (t.range.start, t.range.end, name)).collect();
    ranges.sort();
    let mut end = data;
    for (start, next, name) in ranges {
        if start != end {
            let found = format!("tensor {name} begins at byte {start}, the one before it ends at {end}");
            return Err(file.invalid(found, "tensors without holes or overlaps"));
        }
        end = next;
    }
    if end != file.length {
        let found = format!("the tensors end at byte {end}, the file at {}", file.length);
        return Err(file.invalid(found, "tensors that fill the file (is the download complete?)"));
    }
    Ok(())
}
