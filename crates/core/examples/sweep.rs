//! What the forward pass makes of the cases that `test/fixtures/sweep.py` wrote: exact, refused with which code, or wrong.
//! Ends with 1 if one is wrong.
//!
//!     cargo run --release -p logit-prism-core --example sweep -- DIRECTORY [words of the names of cases]

use logit_prism_core::cache::Logits;
use logit_prism_core::cancel::Cancel;
use logit_prism_core::rows::Positions;
use logit_prism_core::run::Job;
use logit_prism_core::session::{Asked, LoadOptions, RunCall, Session};
use logit_prism_core::tokenizer::Prompt;
use serde_json::Value;
use std::path::Path;

/// Absolute and relative; what is promised.
const TOLERANCE: f64 = 1e-4;

enum Verdict {
    Exact(f64),
    Refused(String),
    Wrong(String),
    /// transformers does not run it either; whether we would.
    Unknown(String),
}

fn judge(dir: &Path, job: &Job) -> Verdict {
    let expected: Value = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
    if let Some(error) = expected["error"].as_str() {
        let config = std::fs::read(dir.join("config.json")).unwrap();
        let raw = logit_prism_core::config::RawConfig::parse("config.json", &config).unwrap();
        return match logit_prism_core::config::ModelConfig::resolve(raw, false) {
            Ok(_) => Verdict::Unknown(error.into()),
            Err(e) => Verdict::Refused(format!("{} {e}", e.code())),
        };
    }
    let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
    let session = match Session::load(dir, &options, job) {
        Ok(session) => session,
        Err(e) if e.code().starts_with("CONFIG_") || e.code().starts_with("TENSOR_") => {
            return Verdict::Refused(format!("{} {e}", e.code()));
        }
        Err(e) => return Verdict::Wrong(format!("{} {e}", e.code())),
    };
    let prompts: Vec<Vec<u32>> = serde_json::from_value(expected["prompts"].clone()).unwrap();
    let logits: Vec<Vec<f64>> = serde_json::from_value(expected["logits"].clone()).unwrap();
    let mut worst = 0f64;
    for (ids, logits) in prompts.into_iter().zip(logits) {
        let n = ids.len();
        let prompts = vec![Prompt::Ids(ids)];
        let asked = Asked { prompts, positions: Positions::Last, prepend_bos: None, chunk_tokens: None };
        let call = RunCall { asked, points: Vec::new(), logits: Logits::Last };
        let found = match session.run(&call, job).and_then(|cache| cache.logits(0)) {
            Ok((_, logits)) => logits,
            Err(e) => return Verdict::Wrong(format!("{n} tokens: {} {e}", e.code())),
        };
        assert_eq!(found.len(), logits.len());
        for (f, e) in found.iter().zip(&logits) {
            worst = worst.max((f64::from(*f) - e).abs() / (1.0 + e.abs()));
        }
        if worst.is_nan() || worst > TOLERANCE {
            return Verdict::Wrong(format!("{n} tokens: off by {worst:.1e}"));
        }
    }
    Verdict::Exact(worst)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("a directory that sweep.py wrote");
    let words: Vec<String> = arguments.collect();
    let mut names: Vec<String> =
        std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let job = Job { cancel: &Cancel::default(), progress: &|_, _| {} };
    let (mut counts, mut largest) = ([0usize; 4], 0f64);
    for name in names.iter().filter(|name| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))) {
        match judge(&Path::new(&directory).join(name), &job) {
            Verdict::Exact(worst) => {
                counts[0] += 1;
                largest = largest.max(worst);
            }
            Verdict::Refused(reason) => {
                counts[1] += 1;
                println!("refused  {name}: {reason}");
            }
            Verdict::Wrong(reason) => {
                counts[2] += 1;
                println!("WRONG    {name}: {reason}");
            }
            Verdict::Unknown(reason) => {
                counts[3] += 1;
                println!("unknown  {name}: accepted, and transformers says {reason}");
            }
        }
    }
    let [exact, refused, wrong, unknown] = counts;
    println!("{exact} exact (largest error {largest:.1e}), {refused} refused, {wrong} wrong, {unknown} unknown");
    std::process::exit(i32::from(wrong > 0));
}
