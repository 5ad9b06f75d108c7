//! Interventions against float64 runs of `transformers` with hooks (`interventions.safetensors`), one by one and all in
//! one batch, with both kinds of kernels.

mod common;

use common::*;
use logit_prism_core::cache::{Axis, Cache, Logits};
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{Asked, Intervention, Interventions, Lists, Reference, RunCall, Session, Set};
use logit_prism_core::tokenizer::Prompt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

const TOLERANCE: f64 = 1e-5;

struct Given {
    tensors: Tensors,
    texts: BTreeMap<String, Value>,
}

impl Given {
    fn of(name: &str) -> Self {
        let path = fixture(name).join("interventions.safetensors");
        let parse = |(key, text): (String, String)| (key, serde_json::from_str(&text).unwrap());
        Given { tensors: read_tensors(&path), texts: metadata(&path).into_iter().map(parse).collect() }
    }

    fn prompt(&self, name: &str) -> Vec<u32> {
        serde_json::from_value(self.texts[name].clone()).unwrap()
    }

    fn runs(&self) -> &Vec<Value> {
        self.texts["runs"].as_array().unwrap()
    }

    /// A row of a tensor [run, …].
    fn row(&self, name: &str, i: usize) -> Vec<f64> {
        let all = stored(&self.tensors, name);
        let n = all.len() / self.runs().len();
        all[i * n..(i + 1) * n].to_vec()
    }

    /// One of the interventions; runs 0 and references 0 are what it takes values from.
    fn intervention(&self, run: &Value) -> Intervention {
        let at = run["at"].as_str().unwrap().to_string();
        let positions = match &run["position"] {
            Value::String(name) if name == "last" => Positions::Last,
            Value::String(name) if name == "all" => Positions::All,
            position => Positions::Of(vec![position.as_i64().unwrap()]),
        };
        let index = |key: &str| run[key].as_u64().map(|i| i as usize);
        let set = match run["set"].as_str().unwrap() {
            "zero" => Set::Zero,
            "scale" => Set::Scale(0.5),
            "add" => Set::Add(stored(&self.tensors, &format!("add.{at}")).iter().map(|v| *v as f32).collect()),
            "from" => Set::From { run: 0, prompt: 0, positions: None },
            "mean" => Set::Mean(Reference::Prompts(0), Axis::All),
            "mean_by_position" => Set::Mean(Reference::Prompts(0), Axis::Position),
            other => panic!("{other}"),
        };
        Intervention { at, head: index("head"), neuron: index("neuron"), positions, set }
    }
}

fn run(session: &Session, call: &RunCall, interventions: &Interventions) -> Cache {
    with_job(|job| session.run_with(call, interventions, job)).unwrap()
}

/// A run of every position that keeps these points.
fn keeping(prompts: Vec<Vec<u32>>, points: &[&str], logits: Logits) -> RunCall {
    let asked = Asked { positions: Positions::All, ..asked(prompts) };
    RunCall { asked, points: points.iter().map(|p| p.to_string()).collect(), logits }
}

fn check(name: &str) {
    for session in load_everywhere(&fixture(name)) {
        check_session(&session.unwrap(), name);
    }
}

fn check_session(session: &Session, name: &str) {
    let given = Given::of(name);
    let config = &session.transformer.config;
    let call = keeping(vec![given.prompt("source")], &["*"], Logits::None);
    let source = Arc::new(run(session, &call, &Interventions::default()));
    let reference: Vec<Vec<u32>> = serde_json::from_value(given.texts["reference"].clone()).unwrap();
    let all: Vec<Intervention> = given.runs().iter().map(|run| given.intervention(run)).collect();
    let interventions = |lists| Interventions {
        lists,
        runs: vec![Arc::clone(&source)],
        references: vec![reference.iter().cloned().map(Prompt::Ids).collect()],
    };

    let prompt = given.prompt("prompt");
    let posts = ["blocks.*.hook_resid_post"];
    let compare = |cache: &Cache, prompt: usize, i: usize| {
        let what = format!("{name} {}", given.runs()[i]);
        close(&what, wide(&cache.logits(prompt).unwrap().1), &given.row("logits", i), TOLERANCE);
        let last: Vec<f64> = (0..config.n_layers)
            .flat_map(|l| {
                let point = logit_prism_core::hook::HookPoint::parse(&format!("blocks.{l}.hook_resid_post"), config);
                let values = cache.values(point.unwrap(), prompt).unwrap().1;
                wide(&values[values.len() - config.d_model..])
            })
            .collect();
        close(&what, last, &given.row("resid_post", i), TOLERANCE);
    };
    for (i, one) in all.iter().enumerate() {
        let call = keeping(vec![prompt.clone()], &posts, Logits::Last);
        let cache = run(session, &call, &interventions(Lists::ForAll(vec![one.clone()])));
        compare(&cache, 0, i);
        assert_eq!(cache.interventions.len(), 1);
    }
    let call = keeping(vec![prompt; all.len()], &posts, Logits::Last);
    let lists = all.iter().map(|one| vec![one.clone()]).collect();
    let cache = run(session, &call, &interventions(Lists::PerPrompt(lists)));
    (0..all.len()).for_each(|i| compare(&cache, i, i));
}

#[test]
fn a_file_keeps_what_was_done_and_is_refused_where_it_cannot_be_read() {
    let name = "parity/gpt2";
    let (session, given) = (load(&fixture(name)).unwrap(), Given::of(name));
    let list: Vec<Intervention> = given.runs().iter().map(|run| given.intervention(run)).collect();
    let list = list.into_iter().filter(|one| matches!(one.set, Set::Zero | Set::Scale(_) | Set::Add(_))).collect();
    let call = keeping(vec![given.prompt("prompt")], &[], Logits::None);
    let made = Interventions { lists: Lists::PerPrompt(vec![list]), ..Interventions::default() };
    let cache = run(&session, &call, &made);
    assert!(cache.interventions.len() > 30);
    let dir = TempDir::new();
    let path = dir.join("run.safetensors");
    session.save_run(&cache, &path).unwrap();
    assert_eq!(session.load_run(&path).unwrap().interventions, cache.interventions);
    let (tensors, mut texts) = (read_tensors(&path), metadata(&path));
    for text in [
        "none",
        "{}",
        r#"[{"at": ["blocks.9.attn.hook_z"], "position": "all", "set": "zero"}]"#,
        r#"[{"at": ["hook_embed"], "position": "some", "set": "zero"}]"#,
        r#"[{"at": ["hook_embed"], "position": "all", "set": "zero", "where": 1}]"#,
    ] {
        texts.insert("interventions".into(), text.into());
        write_tensors_with(&path, &tensors, &texts);
        assert_eq!(error(session.load_run(&path)).code(), "CHECKPOINT_INVALID", "{text}");
    }
}

macro_rules! families {
    ($($name:ident),*) => { $(#[test] fn $name() {
        check(concat!("parity/", stringify!($name)));
    })* };
}

families!(gpt2, llama, gemma2, gptj, mixtral, gpt_oss, olmo2);
