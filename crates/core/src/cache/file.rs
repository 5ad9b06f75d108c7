//! A run as a safetensors file: for prompt `i` the tensors `i/ids` (U32), `i/positions` (U32), `i/<hook point>`, `i/logits`
//! and `i/final_stream`, and what they belong to as metadata. Python's safetensors reads it as it is.

use super::{Cache, Logits, Part};
use crate::batch::check_ids;
use crate::checkpoint::{Header, StoredFile};
use crate::chunk::{Prompted, n_rows};
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::hook::{Dim, HookPoint};
use crate::intervene::Record;
use crate::memory;
use crate::model::{Output, Transformer};
use crate::tap::Activations;
use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype as StoredDtype, View, serialize_to_file};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const FORMAT: &str = "logit-prism run 1";
/// The reader's limit on tensors of one file.
const MAX_TENSORS: usize = 65_536;
/// Stored without being a hook point: what the final norm reads, so that a loaded run can certify an attribution.
const FINAL_STREAM: &str = "final_stream";

/// One tensor to write; its bytes are made when its turn comes.
enum Stored<'a> {
    Ids(&'a [u32]),
    Positions(Vec<u32>),
    Values(Tensor),
}

impl Stored<'_> {
    fn shape(&self) -> Vec<usize> {
        match self {
            Stored::Ids(ids) => vec![ids.len()],
            Stored::Positions(positions) => vec![positions.len()],
            Stored::Values(tensor) => tensor.dims().to_vec(),
        }
    }
}

struct Shaped<'a> {
    stored: Stored<'a>,
    shape: Vec<usize>,
}

fn named(name: String, stored: Stored<'_>) -> (String, Shaped<'_>) {
    let shape = stored.shape();
    (name, Shaped { stored, shape })
}

impl View for Shaped<'_> {
    fn dtype(&self) -> StoredDtype {
        if matches!(self.stored, Stored::Values(_)) { StoredDtype::F32 } else { StoredDtype::U32 }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let numbers = |list: &[u32]| list.iter().flat_map(|n| n.to_le_bytes()).collect();
        Cow::Owned(match &self.stored {
            Stored::Ids(ids) => numbers(ids),
            Stored::Positions(positions) => numbers(positions),
            // a contiguous tensor on the host: reading it back cannot fail
            Stored::Values(tensor) => {
                let values = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).unwrap_or_default();
                values.iter().flat_map(|v| v.to_le_bytes()).collect()
            }
        })
    }

    fn data_len(&self) -> usize {
        4 * self.shape.iter().product::<usize>()
    }
}

/// Writes a run; the file appears whole or not at all. `fingerprint` is the model's.
///
/// # Errors
/// `IO_ERROR`; `INVALID_ARGUMENT` where the run has more tensors than one file takes.
pub fn save(cache: &Cache, path: &Path, fingerprint: &str, config: &ModelConfig) -> Result<()> {
    let mut tensors = Vec::new();
    for (i, prompt) in cache.prompts.iter().enumerate() {
        tensors.push(named(format!("{i}/ids"), Stored::Ids(&prompt.ids)));
        tensors.push(named(
            format!("{i}/positions"),
            Stored::Positions(prompt.positions.iter().map(|p| *p as u32).collect()),
        ));
        for point in &cache.points {
            tensors.push(named(format!("{i}/{point}"), Stored::Values(cache.tensor(*point, i)?.contiguous()?)));
        }
        let part = cache.part(i)?;
        if let Some(logits) = part.logits.get(i - part.first) {
            tensors.push(named(format!("{i}/logits"), Stored::Values(logits.contiguous()?)));
        }
        let before = n_rows(&cache.prompts[part.first..i]);
        let stream = part.output.stream.narrow(0, before, prompt.positions.len())?.contiguous()?;
        tensors.push(named(format!("{i}/{FINAL_STREAM}"), Stored::Values(stream)));
    }
    if tensors.len() > MAX_TENSORS {
        let found = format!("a run of {} tensors", tensors.len());
        return Err(PrismError::argument("run", found, format!("at most {MAX_TENSORS}: fewer prompts or points")));
    }
    let points: Vec<String> = cache.points.iter().map(HookPoint::to_string).collect();
    let mut metadata = HashMap::from([
        ("format".into(), FORMAT.into()),
        ("fingerprint".into(), fingerprint.into()),
        ("family".into(), config.family.into()),
        ("prompts".into(), cache.prompts.len().to_string()),
        ("hook_points".into(), serde_json::to_string(&points).unwrap_or_default()),
        ("logits".into(), cache.logits.name().into()),
        ("dtype".into(), "f32".into()),
        ("convention".into(), "TransformerLens names; values of the Hugging Face forward pass, nothing folded".into()),
    ]);
    if !cache.interventions.is_empty() {
        metadata.insert("interventions".into(), Record::to_json(&cache.interventions));
    }
    whole(path, |temporary| {
        serialize_to_file(tensors, Some(metadata), temporary).map_err(|e| PrismError::Io {
            path: path.display().to_string(),
            operation: "write",
            reason: e.to_string(),
        })
    })
}

/// A file that appears whole or not at all: written beside its place, flushed, then renamed.
fn whole(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = path.file_name().ok_or_else(|| PrismError::argument("path", path.display(), "the path of a file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    static NEXT: AtomicUsize = AtomicUsize::new(0); // two models may save at once
    hidden.push(format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let temporary: PathBuf = path.with_file_name(hidden);
    let finish = || {
        write(&temporary)?;
        let dir = temporary.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = temporary.file_name().unwrap_or_default().to_string_lossy();
        Header::read(&StoredFile::open(dir, &name)?)?; // as many bytes as it says
        let file = std::fs::File::open(&temporary).map_err(PrismError::io(path, "open"))?;
        file.sync_all().map_err(PrismError::io(path, "flush"))?;
        std::fs::rename(&temporary, path).map_err(PrismError::io(path, "rename into"))
    };
    finish().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

/// Reads a run that [`save`] wrote; `fingerprint` is the model's, and must be the run's. `limit` is what it may take.
///
/// # Errors
/// `IO_ERROR`, `CHECKPOINT_INVALID` where the file is no run, of another model, or not consistent in itself, `MEMORY`.
pub fn load(path: &Path, model: &Transformer, fingerprint: &str, limit: Option<u64>) -> Result<Cache> {
    let path = path.canonicalize().map_err(PrismError::io(path, "open"))?;
    let file =
        StoredFile::open(path.parent().unwrap_or(&path), &path.file_name().unwrap_or_default().to_string_lossy())?;
    let header = Header::read(&file)?;
    let field = |key: &str| {
        header
            .metadata
            .get(key)
            .ok_or_else(|| file.invalid(format!("no {key} in its metadata"), "a run that was saved"))
    };
    if field("format")? != FORMAT {
        return Err(file.invalid(format!("the format {:?}", field("format")?), format!("{FORMAT:?}")));
    }
    if field("fingerprint")? != fingerprint {
        return Err(file.invalid("a run of another model", "the fingerprint of the model that it is loaded for"));
    }
    // the file's tensors, one block of it, and the final norm of every final stream
    let streams = header.tensors.iter().filter(|(name, _)| name.ends_with(FINAL_STREAM));
    let streams: u64 = streams.map(|(_, entry)| entry.range.end - entry.range.start).sum();
    memory::check("a saved run", file.length + file.length.min(1 << 20) + 5 * streams, limit)?;
    let reader = Reader { file: &file, header: &header, model };
    let points: Vec<String> = serde_json::from_str(field("hook_points")?)
        .map_err(|_| file.invalid("hook_points that are no list", "a list of names"))?;
    let points: BTreeSet<HookPoint> =
        points.iter().map(|name| HookPoint::parse(name, &model.config)).collect::<Result<_>>()?;
    let logits = match field("logits")?.as_str() {
        "last" => Logits::Last,
        "all" => Logits::All,
        "none" => Logits::None,
        other => return Err(file.invalid(format!("logits {other:?}"), "last, all or none")),
    };
    let interventions = match header.metadata.get("interventions") {
        None => Vec::new(),
        Some(text) => Record::from_json(text, &model.config)
            .ok_or_else(|| file.invalid("interventions that cannot be read", "the records of a saved run"))?,
    };
    let n: usize = field("prompts")?.parse().map_err(|_| file.invalid("prompts that are no number", "a number"))?;
    let each = 3 + points.len() + usize::from(logits != Logits::None); // ids, positions and the final stream besides
    if n.checked_mul(each) != Some(header.tensors.len()) {
        return Err(file.invalid(format!("{n} prompts in {} tensors", header.tensors.len()), format!("{each} of each")));
    }
    let (mut prompts, mut parts) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for i in 0..n {
        let prompt = reader.prompt(i)?;
        parts.push(reader.part(i, &prompt, &points, logits)?);
        prompts.push(prompt);
    }
    file.check_unchanged()?;
    Ok(Cache { texts: vec![None; n], prompts, points, logits, interventions, parts, _held: None })
}

struct Reader<'a> {
    file: &'a StoredFile,
    header: &'a Header,
    model: &'a Transformer,
}

impl Reader<'_> {
    fn prompt(&self, i: usize) -> Result<Prompted> {
        let ids = self.numbers(&format!("{i}/ids"))?;
        check_ids(&ids, i, 0, &self.model.config)?;
        let positions: Vec<usize> = self.numbers(&format!("{i}/positions"))?.into_iter().map(|p| p as usize).collect();
        let rise = positions.windows(2).all(|pair| pair[0] < pair[1]);
        if !rise || positions.last().is_some_and(|last| *last >= ids.len()) {
            return Err(self.file.invalid(format!("the positions of prompt {i}"), "rising positions of the prompt"));
        }
        Ok(Prompted::new(ids, positions))
    }

    fn part(&self, i: usize, prompt: &Prompted, points: &BTreeSet<HookPoint>, logits: Logits) -> Result<Part> {
        let (config, n) = (&self.model.config, prompt.positions.len());
        let (mut rows, mut squares) = (BTreeMap::new(), BTreeMap::new());
        for point in points {
            let shape = memory::shape(config, *point, n, prompt.ids.len());
            let tensor = self.tensor(&format!("{i}/{point}"), &shape)?;
            if point.dims().contains(&Dim::QueryPos) {
                squares.insert(*point, vec![tensor]);
            } else {
                rows.insert(*point, tensor);
            }
        }
        let stream = self.tensor(&format!("{i}/{FINAL_STREAM}"), &[n, config.d_model])?;
        let normed = match n {
            0 => stream.clone(),
            _ => {
                let there = stream.to_device(&self.model.device)?; // where the norm's weights are
                self.model.ln_final.forward_unseen(&there, self.model.kernels)?.to_device(&Device::Cpu)?
            }
        };
        let n_logits = logits.rows(prompt.ids.len()).len();
        let logits = match logits {
            Logits::None => Vec::new(),
            _ => vec![self.tensor(&format!("{i}/logits"), &[n_logits, config.d_vocab])?],
        };
        let output = Output { stream, normed };
        Ok(Part { first: i, n_prompts: 1, activations: Activations::of(rows, squares), output, logits })
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let entry = self.entry(name)?;
        if entry.shape != shape || entry.dtype != "F32" {
            let found = format!("{name} of type {} and shape {:?}", entry.dtype, entry.shape);
            return Err(self.file.invalid(found, format!("F32 of shape {shape:?}")));
        }
        let mut values = Vec::with_capacity(shape.iter().product());
        let append = |block: &[u8]| values.extend(block.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
        self.file.blocks(entry.range.clone(), append)?;
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    fn numbers(&self, name: &str) -> Result<Vec<u32>> {
        let entry = self.entry(name)?;
        if entry.dtype != "U32" || entry.shape.len() != 1 || entry.shape[0] > self.model.config.n_context {
            let found = format!("{name} of type {} and shape {:?}", entry.dtype, entry.shape);
            return Err(self.file.invalid(found, "U32, one for each position"));
        }
        let mut numbers = Vec::with_capacity(entry.shape[0]);
        let append = |block: &[u8]| numbers.extend(block.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)));
        self.file.blocks(entry.range.clone(), append)?;
        Ok(numbers)
    }

    fn entry(&self, name: &str) -> Result<&crate::checkpoint::TensorEntry> {
        let missing = || self.file.invalid(format!("no tensor {name}"), "the tensors of every prompt");
        self.header.tensors.get(name).ok_or_else(missing)
    }
}
