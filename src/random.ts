// Steele, Lea and Flood's splitmix64, as the core has it: seeded numbers that are the same on every machine.

const STEP = 0x9e3779b97f4a7c15n

/** The generator, its state, and what is drawn with it. */
export class SplitMix {
  #state: bigint

  constructor(seed: number) {
    this.#state = BigInt(seed)
  }

  /** The next 64 bits. */
  next(): bigint {
    this.#state = BigInt.asUintN(64, this.#state + STEP)
    let x = this.#state
    x = BigInt.asUintN(64, (x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n)
    x = BigInt.asUintN(64, (x ^ (x >> 27n)) * 0x94d049bb133111ebn)
    return x ^ (x >> 31n)
  }

  /** Uniform below `n`, by the high bits of a product (the bias is below n / 2^64). */
  below(n: number): number {
    return Number((this.next() * BigInt(n)) >> 64n)
  }

  /** One of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }

  /** `count` different ones of a list that has as many, in the order drawn: the first steps of a Fisher-Yates shuffle. */
  sample<T>(list: readonly T[], count: number): T[] {
    const moved = new Map<number, T>() // what lies elsewhere than in the list: far fewer than the list holds
    const at = (i: number) => (moved.has(i) ? (moved.get(i) as T) : (list[i] as T))
    return Array.from({ length: count }, (_, i) => {
      const j = i + this.below(list.length - i)
      const drawn = at(j)
      moved.set(j, at(i))
      return drawn
    })
  }
}
