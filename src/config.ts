// What a model is made of, as its `config.json` resolves to.

/** A norm: (x − mean) / s for `layerNorm`, x / s for `rmsNorm`, times γ, plus β if it has a bias. */
export interface Norm {
  /** Whether it subtracts the mean. */
  readonly kind: 'layerNorm' | 'rmsNorm'
  /** ε, added to the variance or the mean square inside s. */
  readonly eps: number
  /** γ is the stored weight, 1 + weight, or 1. */
  readonly gain: 'weight' | 'onePlusWeight' | 'none'
  /** Whether it adds β. */
  readonly bias: boolean
}

/** How a model knows positions. */
export type Positions =
  | { readonly kind: 'learned'; readonly offset: number }
  | { readonly kind: 'sinusoidal'; readonly offset: number; readonly zero: number | null }
  | { readonly kind: 'rotary'; readonly layers: readonly (Rotary | null)[] }
  | {
      readonly kind: 'alibi'
      readonly slopes: readonly number[]
      readonly zeroAt: 'first' | 'last'
      readonly scale: number
      readonly bf16: boolean
    }

/** Rotary positions of one layer; `null` in their place: a layer without positions. */
export interface Rotary {
  /** The first `dim` numbers of a head turn. */
  readonly dim: number
  /** θ: dimension pair i turns by position · θ^(−2i / dim), before scaling. */
  readonly theta: number
  /** Which dimensions are a pair: i and i + dim / 2, or 2 i and 2 i + 1. */
  readonly style: 'halves' | 'pairs'
  /** How the angles were stretched, with the constants of that way. */
  readonly scaling: {
    readonly kind: 'default' | 'linear' | 'dynamic' | 'llama3' | 'yarn' | 'longRope'
    readonly [constant: string]: unknown
  }
}

/** A resolved `config.json`: sizes and what is special, no option left open. */
export interface ModelConfig {
  /** Hugging Face `model_type`. */
  readonly family: string
  /** Blocks. */
  readonly nLayers: number
  /** Query heads per layer. */
  readonly nHeads: number
  /** Key and value heads per layer; query heads share them in groups. */
  readonly nKeyValueHeads: number
  /** Width of the residual stream. */
  readonly dModel: number
  /** Width of one head. */
  readonly dHead: number
  /** Hidden width of the MLP. */
  readonly dMlp: number
  /** Tokens of the vocabulary. */
  readonly dVocab: number
  /** Longest prompt, in tokens. */
  readonly nContext: number
  /** What the token embedding is multiplied with. */
  readonly embedScale: number
  /** How it knows positions. */
  readonly positions: Positions
  /** The norms of the residual stream. */
  readonly norm: Norm
  /** Whether attention and MLP of a block read the same stream and are added together. */
  readonly parallel: boolean
  /** A norm of queries and keys, before the rotation or after it. */
  readonly qkNorm: {
    readonly norm: Norm
    readonly span: 'head' | 'headOwnGain' | 'headSplitGain' | 'allHeads'
    readonly afterRotary: boolean
  } | null
  /** Queries, keys and values are cut to ± this. */
  readonly clipQkv: number | null
  /** What scores are multiplied with, per layer. */
  readonly attentionScale: readonly number[]
  /** Scores go through cap · tanh(score / cap). */
  readonly scoreCap: number | null
  /** Per layer: a query sees its own position and the window − 1 before it; `null`: all before it. */
  readonly windows: readonly (number | null)[]
  /** Whether heads have a learned score that takes part in the softmax and moves no value. */
  readonly attentionSinks: boolean
  /** The MLP of a block; hidden widths are `dMlp` and, of layers without experts, `dMlpDense`. */
  readonly mlp:
    | { readonly kind: 'plain' | 'gated' }
    | {
        readonly kind: 'experts'
        readonly nExperts: number
        readonly topK: number
        readonly gating: 'softmax' | 'softmaxOfChosen' | 'sigmoid' | 'sigmoidOfChosen'
        /** What else changes choice and gates: a stored number per expert, groups (how many, how many stay), a factor. */
        readonly routing: {
          readonly corrected: boolean
          readonly groups: readonly [number, number] | null
          readonly scale: number
        }
        /** Hidden width of an expert that every token gets, in full or by a gate of its own. */
        readonly shared: number | null
        readonly swiglu: { readonly alpha: number; readonly limit: number } | null
      }
  /** Layers without experts, in a model that has them. */
  readonly denseLayers: readonly number[]
  /** Hidden width of the MLP of `denseLayers`. */
  readonly dMlpDense: number
  /** Of the MLP, by the name that the config has for it. */
  readonly activation: string
  /** Which linear layers have a bias. */
  readonly biases: Readonly<Record<'qkv' | 'attnOut' | 'mlp' | 'router' | 'unembed', boolean>>
  /** What attention and MLP write is multiplied with this. */
  readonly residualMultiplier: number
  /** κ: what logits are multiplied with. */
  readonly logitScale: number
  /** Logits go through cap · tanh(logit / cap). */
  readonly logitCap: number | null
  /** Whether the unembedding is the transposed token embedding. */
  readonly tiedEmbeddings: boolean
  /** The id of the BOS token, if there is one. */
  readonly bosToken: number | null
  /** What is special about the model, in words. */
  readonly notes: readonly string[]
  /** Config keys that were accepted without being known. */
  readonly unknownKeys: readonly string[]
}
