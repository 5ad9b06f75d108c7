// Names of hook points and the axes of what they hold, as types. The table mirrors the core's; a test compares the two.
import type { Dim } from './tensor.js'

/** Points inside a block, behind `blocks.{l}.`, and their axes. */
export interface BlockPoints {
  /** Stream that enters the block. */
  hook_resid_pre: ['pos', 'd_model']
  /** Scale s of the norm before attention. */
  'ln1.hook_scale': ['pos', 'one']
  /** (x − mean) / s or x / s, before γ and β. */
  'ln1.hook_normalized': ['pos', 'd_model']
  /** Queries with bias, after clipping, before a norm of theirs and the rotation. */
  'attn.hook_q': ['pos', 'head', 'd_head']
  /** Keys so. */
  'attn.hook_k': ['pos', 'kv_head', 'd_head']
  /** Values with bias, after clipping. */
  'attn.hook_v': ['pos', 'kv_head', 'd_head']
  /** Queries as the scores use them. */
  'attn.hook_rot_q': ['pos', 'head', 'd_head']
  /** Keys as the scores use them. */
  'attn.hook_rot_k': ['pos', 'kv_head', 'd_head']
  /** After scale, cap, ALiBi and mask; −∞ where masked. */
  'attn.hook_attn_scores': ['head', 'query_pos', 'key_pos']
  /** Softmax of the scores, a sink's column left out. */
  'attn.hook_pattern': ['head', 'query_pos', 'key_pos']
  /** Pattern × values. */
  'attn.hook_z': ['pos', 'head', 'd_head']
  /** What each head adds to the stream. */
  'attn.hook_result': ['pos', 'head', 'd_model']
  /** Scale s of the norm after attention. */
  'ln1_post.hook_scale': ['pos', 'one']
  /** Before its γ and β. */
  'ln1_post.hook_normalized': ['pos', 'd_model']
  /** What attention adds to the stream. */
  hook_attn_out: ['pos', 'd_model']
  /** Stream after attention's write. */
  hook_resid_mid: ['pos', 'd_model']
  /** Scale s of the norm before the MLP. */
  'ln2.hook_scale': ['pos', 'one']
  /** Before its γ and β. */
  'ln2.hook_normalized': ['pos', 'd_model']
  /** Gate (or only) projection, before the activation. */
  'mlp.hook_pre': ['pos', 'd_mlp']
  /** Linear branch of a gated MLP. */
  'mlp.hook_pre_linear': ['pos', 'd_mlp']
  /** What multiplies W_out. */
  'mlp.hook_post': ['pos', 'd_mlp']
  /** Gate of each expert, 0 where not chosen. */
  'mlp.hook_router_weights': ['pos', 'expert']
  /** Scale s of the norm after the MLP. */
  'ln2_post.hook_scale': ['pos', 'one']
  /** Before its γ and β. */
  'ln2_post.hook_normalized': ['pos', 'd_model']
  /** What the MLP adds to the stream. */
  hook_mlp_out: ['pos', 'd_model']
  /** Stream after the block. */
  hook_resid_post: ['pos', 'd_model']
}

/** Points outside the blocks, and their axes. */
export interface OuterPoints {
  /** Token embedding after its scale and norm. */
  hook_embed: ['pos', 'd_model']
  /** Learned positions. */
  hook_pos_embed: ['pos', 'd_model']
  /** Scale s of the final norm. */
  'ln_final.hook_scale': ['pos', 'one']
  /** Before its γ and β. */
  'ln_final.hook_normalized': ['pos', 'd_model']
}

/** The name of a hook point. Which of them a model has, `model.hookNames` tells. */
export type HookName = keyof OuterPoints | `blocks.${number}.${keyof BlockPoints}`

/** A point of the residual stream. */
export type ResidualHook = `blocks.${number}.hook_resid_${'pre' | 'mid' | 'post'}`

/** The axes of a hook point's values. */
export type DimsOf<H extends HookName> = H extends keyof OuterPoints
  ? OuterPoints[H]
  : H extends `blocks.${number}.${infer P extends keyof BlockPoints}`
    ? BlockPoints[P]
    : readonly Dim[]
