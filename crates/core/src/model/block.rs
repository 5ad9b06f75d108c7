//! One block. Serial: `x + attention(ln1(x))`, then `x + mlp(ln2(x))`. Parallel: `x + attention(ln1(x)) + mlp(ln2(x))`,
//! or both from one norm. What a sublayer writes may go through a norm and a multiplier before it is added.

use super::attention::Pass;
use super::{Attention, HiddenLayer, Mlp, NormLayer, Reads};
use crate::error::Result;
use crate::hook::BlockPoint::*;
use crate::hook::{BlockPoint, HookPoint};
use crate::ops::{self, Kernels};
use crate::tap::{Activations, Tap};
use candle_core::Tensor;

/// A block.
pub struct Block {
    /// Which layer it is.
    pub layer: usize,
    /// Whether attention and MLP read the same stream.
    pub parallel: bool,
    /// Norm before attention.
    pub ln1: Option<NormLayer>,
    /// Attention.
    pub attention: Attention,
    /// Norm after attention.
    pub ln1_post: Option<NormLayer>,
    /// Norm before the MLP.
    pub ln2: Option<NormLayer>,
    /// MLP.
    pub mlp: Mlp,
    /// Norm after the MLP.
    pub ln2_post: Option<NormLayer>,
    /// What both write is multiplied with this.
    pub multiplier: f64,
}

impl Block {
    /// x [rows, d_model] → the same, with the rows of the segments that enter behind attention; of the last block the
    /// tap's rows only, for nobody reads the others. `None` where no segment is under way by then.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward(&self, x: Option<Tensor>, pass: &mut Pass, tap: &mut Tap) -> Result<Option<Tensor>> {
        let at = |point| HookPoint::Block(self.layer, point);
        let Some((read, stream)) = self.attended(x, pass, tap)? else { return Ok(None) };
        let raw = self.mlp.forward(&read, pass, tap)?;
        let written = self.written(&self.ln2_post, raw, pass, [Ln2PostScale, Ln2PostNormalized], tap)?;
        let mlp_out = tap.rows(at(MlpOut), written)?;
        Ok(Some(tap.rows(at(ResidPost), ops::add(pass.kernels, &stream, &mlp_out)?)?))
    }

    /// The attention half: what the MLP reads, and the stream that it writes to.
    fn attended(&self, x: Option<Tensor>, pass: &mut Pass, tap: &mut Tap) -> Result<Option<(Tensor, Tensor)>> {
        let at = |point| HookPoint::Block(self.layer, point);
        let Some(x) = x else {
            let entering = pass.join(None, tap)?;
            return entering.map(|stream| self.before_mlp(stream, pass, tap)).transpose();
        };
        let resid_pre = tap.rows(at(ResidPre), x)?;
        let reads = Reads::of(&resid_pre, &self.ln1, &self.attention, pass, tap)?;
        let read = self.norm(&self.ln1, &resid_pre, pass, [Ln1Scale, Ln1Normalized], tap)?;
        let (z, raw) = self.attention.forward(&read, &reads, pass, tap)?;
        let (resid_pre, read) =
            if tap.is_narrowed() { (tap.of_all(&resid_pre)?, tap.of_all(&read)?) } else { (resid_pre, read) };
        if tap.wants(at(HeadResult)) {
            tap.rows(at(HeadResult), self.head_results(&z, &raw, pass)?)?;
        }
        let written = self.written(&self.ln1_post, raw, pass, [Ln1PostScale, Ln1PostNormalized], tap)?;
        let attn_out = tap.rows(at(AttnOut), written)?;
        let resid_mid = ops::add(pass.kernels, &resid_pre, &attn_out)?;
        if !self.parallel {
            let entered = pass.join(Some(resid_mid), tap)?;
            return entered.map(|stream| self.before_mlp(stream, pass, tap)).transpose();
        }
        let read = match &self.ln2 {
            None if tap.changes(at(MlpIn)) => self.unseen_norm(&tap.rows(at(MlpIn), resid_pre)?, pass)?,
            None => read, // both read the one norm
            Some(_) => {
                let mlp_in = tap.rows(at(MlpIn), resid_pre)?;
                self.norm(&self.ln2, &mlp_in, pass, [Ln2Scale, Ln2Normalized], tap)?
            }
        };
        Ok(Some((read, resid_mid)))
    }

    /// What the MLP of a serial block reads of the stream in front of it.
    fn before_mlp(&self, resid_mid: Tensor, pass: &Pass, tap: &mut Tap) -> Result<(Tensor, Tensor)> {
        let at = |point| HookPoint::Block(self.layer, point);
        let resid_mid = tap.rows(at(ResidMid), resid_mid)?;
        let mlp_in = tap.rows(at(MlpIn), resid_mid.clone())?;
        Ok((self.norm(&self.ln2, &mlp_in, pass, [Ln2Scale, Ln2Normalized], tap)?, resid_mid))
    }

    /// What attention adds to the stream where it computed `raw` [rows, d_model], and the scale of the norm behind it.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn attention_write(&self, raw: Tensor, kernels: Kernels) -> Result<(Tensor, Option<Tensor>)> {
        self.write(&self.ln1_post, raw, kernels)
    }

    /// The same of the MLP.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn mlp_write(&self, raw: Tensor, kernels: Kernels) -> Result<(Tensor, Option<Tensor>)> {
        self.write(&self.ln2_post, raw, kernels)
    }

    fn write(&self, post: &Option<NormLayer>, raw: Tensor, kernels: Kernels) -> Result<(Tensor, Option<Tensor>)> {
        let (normed, scale) = match post {
            Some(post) => (post.forward_unseen(&raw, kernels)?, Some(post.scale(&raw, kernels)?)),
            None => (raw, None),
        };
        Ok((self.multiplied(normed)?, scale))
    }

    /// What each head adds to the stream, a norm after attention held at its scale: [rows, H, d_model].
    fn head_results(&self, z: &Tensor, raw: &Tensor, pass: &Pass) -> Result<Tensor> {
        let heads = self.attention.head_results(z, pass.kernels)?;
        let heads = match &self.ln1_post {
            Some(post) => post.linear_part(&heads, &post.scale(raw, pass.kernels)?.unsqueeze(1)?)?,
            None => heads,
        };
        Ok((heads * self.multiplier)?)
    }

    /// The points from which [`Block::hidden_layers`] is made.
    pub fn hidden_points(&self) -> Vec<HookPoint> {
        let points =
            if matches!(self.mlp, Mlp::Experts(_)) { vec![RouterWeights, self.mlp_input().0] } else { vec![MlpPost] };
        points.into_iter().map(|point| HookPoint::Block(self.layer, point)).collect()
    }

    /// The hidden layers of the MLP at the kept rows: the one that was kept, or every expert's, computed again from what
    /// the MLP read and the gates that the run chose.
    ///
    /// # Errors
    /// `INTERNAL` where a point of [`Block::hidden_points`] was not kept.
    pub fn hidden_layers(&self, activations: &Activations, kernels: Kernels) -> Result<Vec<HiddenLayer<'_>>> {
        let kept = |point| activations.kept(HookPoint::Block(self.layer, point));
        let one = |output| Ok(vec![HiddenLayer { values: kept(MlpPost)?.clone(), output, weight: None }]);
        match &self.mlp {
            Mlp::Plain { output, .. } => one(output),
            Mlp::Gated(gated) => one(&gated.output),
            Mlp::Experts(experts) => {
                let (point, norm) = self.mlp_input();
                let read = kept(point)?;
                let x = norm.map_or_else(|| Ok(read.clone()), |norm| norm.gain_and_bias(read))?;
                experts.hidden_layers(&x, kept(RouterWeights)?, kernels)
            }
        }
    }

    /// The point that the MLP reads, through the gain and bias of a norm.
    fn mlp_input(&self) -> (BlockPoint, Option<&NormLayer>) {
        match (&self.ln2, &self.ln1) {
            (Some(ln2), _) => (Ln2Normalized, Some(ln2)),
            (None, Some(ln1)) if self.parallel => (Ln1Normalized, Some(ln1)),
            (None, None) if self.parallel => (ResidPre, None),
            _ => (ResidMid, None),
        }
    }

    /// The norm that attention and a parallel MLP share, where the MLP alone reads something else.
    fn unseen_norm(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.ln1.as_ref().map_or_else(|| Ok(x.clone()), |ln1| ln1.forward_unseen(x, pass.kernels))
    }

    fn norm(
        &self,
        norm: &Option<NormLayer>,
        x: &Tensor,
        pass: &Pass,
        points: [BlockPoint; 2],
        tap: &mut Tap,
    ) -> Result<Tensor> {
        norm.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.forward(x, pass, points, tap))
    }

    /// What a sublayer adds to the stream, from what it computed.
    fn written(
        &self,
        post: &Option<NormLayer>,
        raw: Tensor,
        pass: &Pass,
        points: [BlockPoint; 2],
        tap: &mut Tap,
    ) -> Result<Tensor> {
        let normed = self.norm(post, &raw, pass, points, tap)?;
        self.multiplied(normed)
    }

    fn multiplied(&self, written: Tensor) -> Result<Tensor> {
        Ok(if self.multiplier == 1.0 { written } else { (written * self.multiplier)? })
    }
}
