//! The instruction sets that kernels are compiled for, chosen at run time.
//!
//! A kernel is one piece of code, generic over [`Simd`]. [`Isa::run`] calls it inside a function that is compiled with
//! the instruction set's features; everything a kernel calls must be `#[inline(always)]`, so that it is compiled with
//! them too. Loops over slices then vectorise by themselves; only the matrix product names vectors.

#[cfg(target_arch = "x86_64")]
use super::amx;

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512, and a matrix unit for the large products.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Isa {
    /// All that this machine has, the best last.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut all = vec![Self::portable()];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Isa(Level::Avx2));
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                    all.push(Isa(Level::Avx512));
                    if amx::is_available() {
                        all.push(Isa(Level::Amx));
                    }
                }
            }
        }
        all
    }

    /// The best that this machine has.
    pub fn best() -> Isa {
        Self::available().last().copied().unwrap_or(Self::portable())
    }

    /// What every machine has.
    pub(crate) fn portable() -> Isa {
        Isa(Level::Portable)
    }

    /// Runs a kernel with these instructions.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Out {
        match self.0 {
            Level::Portable => kernel.run::<Portable>(),
            // SAFETY: an `Isa` of this level is only made where the features were detected
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { x86::avx2(kernel) },
            // SAFETY: as above
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Amx => unsafe { x86::avx512(kernel) },
        }
    }

    /// Whether large products run on the matrix unit.
    pub(crate) fn has_matrix_unit(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Level::Amx;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// Code that is compiled once for each instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// What it returns.
    type Out;
    /// The code.
    fn run<S: Simd>(self) -> Self::Out;
}

/// Vectors of f32, and what the scalar code of a kernel may use.
///
/// # Safety
/// The functions are called only inside [`Isa::run`], where their instructions exist. Pointers must be valid for the
/// lanes that are touched.
pub(crate) trait Simd: Copy {
    /// A vector.
    type V: Copy;
    /// Numbers in a vector.
    const LANES: usize;
    /// Rows and vectors of the tile that the matrix product keeps in registers.
    const TILE: (usize, usize);
    /// Rows of x of which the product with a panel keeps sums in registers, 16 for each row.
    const STRIP: usize;
    /// Where there are more: rows, and panels beside each other.
    const BESIDE: (usize, usize);
    /// `a b + c`, in one rounding where the machine has an instruction for it.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
    unsafe fn zero() -> Self::V;
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// The first `n` lanes; the others are 0.
    unsafe fn load_first(from: *const f32, n: usize) -> Self::V;
    /// The first `n` lanes.
    unsafe fn store_first(to: *mut f32, v: Self::V, n: usize);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a b + c`
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The same past the caches, to an address of whole vectors; [`Simd::fence`] comes before anyone else reads it.
    unsafe fn stream(to: *mut f32, v: Self::V) {
        // SAFETY: the caller's
        unsafe { Self::store(to, v) }
    }
    /// Ends a series of [`Simd::stream`].
    fn fence() {}
    /// Asks for a cache line that will be read soon; the address need not be valid.
    fn prefetch(at: *const f32);
}

/// Four lanes in plain Rust: SSE2 on any x86-64, NEON on any aarch64.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    const TILE: (usize, usize) = (4, 2);
    const STRIP: usize = if cfg!(target_arch = "aarch64") { 4 } else { 2 };
    const BESIDE: (usize, usize) = (Self::STRIP, 1);
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        // without an instruction, `f32::mul_add` is a slow library call
        if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
    }
    #[inline(always)]
    unsafe fn zero() -> Self::V {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller's
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        // SAFETY: the caller's
        unsafe { to.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller's
        std::array::from_fn(|i| if i < n { unsafe { *from.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: Self::V, n: usize) {
        for (i, v) in v.iter().enumerate().take(n) {
            // SAFETY: the caller's
            unsafe { *to.add(i) = *v };
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| Self::mul_add(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn prefetch(_: *const f32) {}
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Simd};
    use std::arch::x86_64::*;

    /// # Safety
    /// The machine must have AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<K: Kernel>(kernel: K) -> K::Out {
        kernel.run::<Avx2>()
    }

    /// # Safety
    /// The machine must have AVX-512 F and VL, AVX2 and FMA.
    #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
    pub(super) unsafe fn avx512<K: Kernel>(kernel: K) -> K::Out {
        kernel.run::<Avx512>()
    }

    /// −1 in the lanes to touch: `8 − n` numbers from the end of the first half on.
    static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    /// The first n of 8 lanes.
    #[inline(always)]
    unsafe fn mask(n: usize) -> __m256i {
        // SAFETY: n is at most 8, the caller has AVX2
        unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast()) }
    }

    /// An instruction set by its instructions.
    macro_rules! instructions {
        (
            $name:ident: $v:ty, $lanes:literal, $tile:expr, $strip:literal, $beside:expr, $zero:ident, $splat:ident, $load:ident,
            $store:ident, $stream:ident, $add:ident, $fma:ident, |$from:ident, $n:ident| $load_first:expr, |$to:ident, $value:ident, $m:ident| $store_first:expr
        ) => {
            #[derive(Clone, Copy)]
            pub(super) struct $name;

            // every block: `Isa::run` was entered with these features, and pointers are the caller's
            #[allow(clippy::undocumented_unsafe_blocks)]
            impl Simd for $name {
                type V = $v;
                const LANES: usize = $lanes;
                const TILE: (usize, usize) = $tile;
                const STRIP: usize = $strip;
                const BESIDE: (usize, usize) = $beside;
                #[inline(always)]
                fn mul_add(a: f32, b: f32, c: f32) -> f32 {
                    a.mul_add(b, c)
                }
                #[inline(always)]
                unsafe fn zero() -> $v {
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn splat(x: f32) -> $v {
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(from: *const f32) -> $v {
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(to: *mut f32, v: $v) {
                    unsafe { $store(to, v) }
                }
                #[inline(always)]
                unsafe fn load_first($from: *const f32, $n: usize) -> $v {
                    unsafe { $load_first }
                }
                #[inline(always)]
                unsafe fn store_first($to: *mut f32, $value: $v, $m: usize) {
                    unsafe { $store_first }
                }
                #[inline(always)]
                unsafe fn add(a: $v, b: $v) -> $v {
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                    unsafe { $fma(a, b, c) }
                }
                #[inline(always)]
                unsafe fn stream(to: *mut f32, v: $v) {
                    unsafe { $stream(to, v) }
                }
                #[inline(always)]
                fn fence() {
                    unsafe { _mm_sfence() }
                }
                #[inline(always)]
                fn prefetch(at: *const f32) {
                    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
                }
            }
        };
    }

    instructions!(
        Avx2: __m256, 8, (4, 3), 6, (6, 1), _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps,
        _mm256_stream_ps, _mm256_add_ps, _mm256_fmadd_ps, |from, n| _mm256_maskload_ps(from, mask(n)), |to, v, n| _mm256_maskstore_ps(to, mask(n), v)
    );
    instructions!(
        Avx512: __m512, 16, (8, 3), 24, (12, 2), _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps,
        _mm512_stream_ps, _mm512_add_ps, _mm512_fmadd_ps, |from, n| _mm512_maskz_loadu_ps(0xFFFFu16 >> (16 - n), from),
        |to, v, n| _mm512_mask_storeu_ps(to, 0xFFFFu16 >> (16 - n), v)
    );
}
