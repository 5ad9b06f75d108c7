//! What must happen to the numbers when the weights change in a way whose effect is known by hand.

mod common;

use common::*;
use logit_prism_core::attribution::{Attribution, Unit};
use logit_prism_core::rows::Positions;
use logit_prism_core::session::Call;

/// Every position of the reference prompts and pairs.
fn reference(name: &str) -> Call {
    let mut call = reference_call(&json(&fixture(name).join("reference.json")));
    call.asked.positions = Positions::All;
    call
}

fn run(dir: &TempDir, call: &Call) -> Attribution {
    attribute(&load(&dir.0).unwrap(), call).unwrap()
}

fn original(name: &str, call: &Call) -> Attribution {
    attribute(&load(&fixture(name)).unwrap(), call).unwrap()
}

fn edited(name: &str, tensor: &str, f: impl FnOnce(&mut Vec<f32>)) -> TempDir {
    changed(name, |tensors| edit(tensors, tensor, f))
}

fn scale(by: f32) -> impl Fn(&mut Vec<f32>) {
    move |values| values.iter_mut().for_each(|v| *v *= by)
}

fn add(value: f32) -> impl Fn(&mut Vec<f32>) {
    move |values| values.iter_mut().for_each(|v| *v += value)
}

/// Panics unless both are the same to the bit.
#[track_caller]
fn identical(a: &Attribution, b: &Attribution) {
    assert_eq!(a.values, b.values);
    assert_eq!((&a.constant, &a.certificates), (&b.constant, &b.certificates));
}

#[test]
fn three_times_the_unembedding_is_three_times_everything() {
    let call = reference("gpt2_untied");
    let (a, b) = (original("gpt2_untied", &call), run(&edited("gpt2_untied", "lm_head.weight", scale(3.0)), &call));
    let tripled = |values: Vec<f64>| values.iter().map(|v| 3.0 * v).collect::<Vec<_>>();
    close("attributions", wide(&b.values), &tripled(wide(&a.values)), 1e-5);
    close("constants", b.constant.clone(), &tripled(a.constant.clone()), 1e-6);
    let measured = |r: &Attribution| r.certificates.iter().map(|c| c.measured).collect::<Vec<_>>();
    close("measured", measured(&b), &tripled(measured(&a)), 1e-5);
}

#[test]
fn a_constant_on_every_token_cancels_in_a_difference() {
    // W_U[:, t] + v for all t: u = W_U[:, a] − W_U[:, b] is unchanged, a single logit is not
    let name = "lm_head.weight";
    let dir = edited("gpt2_untied", name, |w| w.chunks_mut(24).for_each(|row| row[3] += 0.5));
    let call = reference("gpt2_untied");
    let (a, b) = (original("gpt2_untied", &call), run(&dir, &call));
    (0..a.rows.len()).for_each(|i| same_row(&format!("row {i}"), (&b, i), (&a, i)));
}

#[test]
fn twice_the_final_gain_is_twice_every_component() {
    // ũ = γ ⊙ u doubles; the constant u·β does not
    let call = reference("gpt2");
    let (a, b) = (original("gpt2", &call), run(&edited("gpt2", "transformer.ln_f.weight", scale(2.0)), &call));
    close("values", wide(&b.values), &wide(&a.values).iter().map(|v| 2.0 * v).collect::<Vec<_>>(), 1e-5);
    assert_eq!(b.constant, a.constant);
}

#[test]
fn a_constant_added_to_what_layer_1_writes_as_bias_is_in_no_column() {
    // every element of b_O(1) + 0.75: ũ has mean 0, so c·ũ stays; ln2(1) and every later norm remove the mean again
    let call = reference("gpt2");
    let dir = edited("gpt2", "transformer.h.1.attn.c_proj.bias", add(0.75));
    let (a, b) = (original("gpt2", &call), run(&dir, &call));
    (0..a.rows.len()).for_each(|i| same_row(&format!("row {i}"), (&b, i), (&a, i)));
}

#[test]
fn a_bias_in_the_last_mlp_moves_its_column_and_the_scale_only() {
    // b_out(2)[5] + 40 comes after everything else: every other c·ũ is unchanged, so the columns shrink by s/s′ together
    let call = reference("gpt2");
    let dir = edited("gpt2", "transformer.h.2.mlp.c_proj.bias", |b| b[5] += 40.0);
    let (a, b) = (original("gpt2", &call), run(&dir, &call));
    for i in 0..a.rows.len() {
        let (a, b) = (row_of(&a, i), row_of(&b, i));
        let ratio = f64::from(b[0]) / f64::from(a[0]);
        assert!((ratio - 1.0).abs() > 1e-3, "the scale changed: {ratio}");
        let last = a.len() - 1;
        let expected: Vec<f64> = wide(&a[..last]).iter().map(|v| ratio * v).collect();
        close(&format!("row {i}"), wide(&b[..last]), &expected, 1e-4);
        assert!((f64::from(b[last]) - ratio * f64::from(a[last])).abs() > 1e-2, "row {i}: the MLP's column moved");
    }
}

/// gpt2: 4 heads of 8, so layer 1's heads are columns 8 to 11 of 20.
const HEAD: usize = 8;

#[test]
fn permuted_heads_are_permuted_columns() {
    const ORDER: [usize; 4] = [2, 0, 3, 1];
    /// Blocks of 8 in a run of 32, in the new order.
    fn permute(values: &mut [f32], width: usize) {
        let old = values.to_vec();
        for (new, head) in ORDER.iter().enumerate() {
            values[new * width..(new + 1) * width].copy_from_slice(&old[head * width..(head + 1) * width]);
        }
    }
    let dir = changed("gpt2", |tensors| {
        for name in ["transformer.h.1.attn.c_attn.weight", "transformer.h.1.attn.c_attn.bias"] {
            edit(tensors, name, |w| w.chunks_mut(32).for_each(|q_k_or_v| permute(q_k_or_v, HEAD)));
        }
        edit(tensors, "transformer.h.1.attn.c_proj.weight", |w| permute(w, HEAD * 32)); // rows of [32, 32]
    });
    let call = reference("gpt2");
    let (a, b) = (original("gpt2", &call), run(&dir, &call));
    assert_eq!(row_of(&a, 0).len(), 20);
    for i in 0..a.rows.len() {
        let mut expected = wide(row_of(&a, i));
        let old = expected.clone();
        ORDER.iter().enumerate().for_each(|(new, head)| expected[8 + new] = old[8 + head]);
        close(&format!("row {i}"), wide(row_of(&b, i)), &expected, 1e-5);
        let moved = (0..4).any(|h| (old[8 + h] - expected[8 + h]).abs() > 1e-2);
        assert!(moved, "row {i}: the heads differ");
    }
}

#[test]
fn a_head_that_writes_nothing_has_a_column_of_zeros() {
    // head 3 of layer 0: rows 24 to 31 of W_O; its column is 5 (embed, pos_embed, heads 0 to 2 before it)
    let dir = edited("gpt2", "transformer.h.0.attn.c_proj.weight", |w| w[24 * 32..].fill(0.0));
    let result = run(&dir, &reference("gpt2"));
    for i in 0..result.rows.len() {
        let row = row_of(&result, i);
        assert_eq!(row[5], 0.0, "row {i}");
        assert!([2, 3, 4, 6, 7].iter().all(|c| row[*c] != 0.0), "row {i}: {row:?}");
    }
}

#[test]
fn blocks_that_write_nothing_leave_the_embeddings() {
    let dir = changed("gpt2", |tensors| {
        for l in 0..3 {
            for (sublayer, end) in [("attn", "weight"), ("attn", "bias"), ("mlp", "weight"), ("mlp", "bias")] {
                edit(tensors, &format!("transformer.h.{l}.{sublayer}.c_proj.{end}"), scale(0.0));
            }
        }
    });
    let call = reference("gpt2");
    let result = run(&dir, &call);
    // the logit difference of W_E[id] + W_pos[position] through the final norm, from the stored weights
    let tensors = read_tensors(&fixture("gpt2").join("model.safetensors"));
    let [wte, wpe, gamma, beta] =
        ["wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"].map(|n| stored(&tensors, &format!("transformer.{n}")));
    let reference = json(&fixture("gpt2").join("reference.json"));
    let prompts = ids(&reference["prompts"]);
    for (i, row) in result.rows.iter().enumerate() {
        let id = prompts[row.prompt][row.position] as usize;
        let x: Vec<f64> = (0..32).map(|j| wte[id * 32 + j] + wpe[row.position * 32 + j]).collect();
        let mean = x.iter().sum::<f64>() / 32.0;
        let s = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 32.0 + 1e-5).sqrt();
        let token = |side: &str| reference[side][row.prompt].as_u64().unwrap() as usize;
        let (answer, against) = (token("answer"), token("against"));
        let logit = |t: usize| (0..32).map(|j| (gamma[j] * (x[j] - mean) / s + beta[j]) * wte[t * 32 + j]).sum::<f64>();
        let columns = row_of(&result, i);
        assert!(columns[2..].iter().all(|v| *v == 0.0), "row {i}: {columns:?}");
        let sum = f64::from(columns[0]) + f64::from(columns[1]) + result.constant[i];
        close(&format!("row {i}"), [sum], &[logit(answer) - logit(against)], 1e-5);
    }
}

#[test]
fn a_layer_is_its_heads_bias_and_mlp() {
    let mut call = reference("gpt2_scaled");
    let heads = original("gpt2_scaled", &call);
    call.options.unit = Unit::Layer;
    let layers = original("gpt2_scaled", &call);
    assert_eq!(heads.certificates, layers.certificates);
    for i in 0..heads.rows.len() {
        let fine = wide(row_of(&heads, i)); // embed, pos_embed, then per layer 5 heads, bias, MLP
        let mut expected = fine[..2].to_vec();
        fine[2..].chunks(7).for_each(|layer| expected.extend([layer[..6].iter().sum(), layer[6]]));
        close(&format!("row {i}"), wide(row_of(&layers, i)), &expected, 1e-6);
    }
}

#[test]
fn the_stored_type_of_exact_values_does_not_matter() {
    // the values of gpt2_f16 and gpt2_bf16, widened: a half is 1-5-10 bits, bfloat16 the upper half of an f32
    for (name, widen) in
        [("gpt2_f16", half_to_f32 as fn(u16) -> f32), ("gpt2_bf16", |b| f32::from_bits(u32::from(b) << 16))]
    {
        let dir = changed(name, |tensors| {
            for (dtype, _, bytes) in tensors.values_mut() {
                assert_eq!(*dtype, name.strip_prefix("gpt2_").unwrap().to_uppercase());
                *dtype = "F32".into();
                let halves = bytes.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
                *bytes = halves.flat_map(|bits| widen(bits).to_le_bytes()).collect();
            }
        });
        let call = reference(name);
        identical(&original(name, &call), &run(&dir, &call));
    }
}

/// IEEE 754: (−1)^sign · 2^(exponent − 15) · 1.fraction, and 2^−14 · 0.fraction where the exponent is 0.
fn half_to_f32(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023) / 1024.0);
    let size = if exponent == 0 { fraction * 2f32.powi(-14) } else { (1.0 + fraction) * 2f32.powi(exponent - 15) };
    if bits >> 15 == 1 { -size } else { size }
}

#[test]
fn the_prefix_of_the_names_does_not_matter() {
    let dir = changed("gpt2", |tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (name.strip_prefix("transformer.").unwrap().to_string(), tensor))
            .collect();
    });
    let call = reference("gpt2");
    identical(&original("gpt2", &call), &run(&dir, &call));
}

#[test]
fn a_tied_matrix_that_is_stored_twice_is_the_same_model() {
    let dir = changed("gpt2", |tensors| {
        let embedding = tensors["transformer.wte.weight"].clone();
        tensors.insert("lm_head.weight".into(), embedding);
    });
    let call = reference("gpt2");
    identical(&original("gpt2", &call), &run(&dir, &call));
}
