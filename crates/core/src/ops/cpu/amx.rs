//! The matrix product `y += x W` on the matrix unit of Intel's servers (AMX), in the precision of f32.
//!
//! The unit multiplies tiles of bf16 and sums in f32. A number of f32 is exactly the sum of three of bf16, eight bits
//! each: `x = x₀ + x₁ + x₂`, rounded, so that each is at most 2⁻⁸ of the one before. Of the nine products
//!
//! ```text
//! x w = x₀w₀ + (x₀w₁ + x₁w₀) + (x₀w₂ + x₁w₁ + x₂w₀) + …
//! ```
//!
//! those left out are at most 2⁻²⁴ of x w together, what rounding a product to f32 costs. Weights that were stored as
//! bf16 have w₁ = w₂ = 0 and need three. Source: Henry, Tang and Heinecke 2019, "Leveraging the bfloat16 artificial
//! intelligence datatype for higher-precision computations".
//!
//! x is cut into tiles once for some of the inner axis; W a few panels at a time, the next ones while the unit is busy with
//! the last: reading W costs nothing then. The unit flushes numbers below 2⁻¹²⁶ to zero, so very small and very large x are
//! left to `panels.rs`.

use super::panels::Product;

/// Whether this machine has the unit and the system lets this process use it.
pub(crate) fn is_available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return unit::is_available();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Computes the product and returns true, or does nothing where numbers of x are out of range.
///
/// # Safety
/// [`is_available`], and what [`Product`] asks for.
pub(crate) unsafe fn product(m: Product) -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    // SAFETY: the caller's
    return unsafe { unit::product(m) };
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        let _ = m;
        false
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod unit {
    use super::super::panels::{Onto, Product, WIDTH};
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::cell::RefCell;
    use std::sync::OnceLock;

    /// Rows and columns of a tile of y; a tile of x has as many rows and `DEPTH` columns.
    const SIDE: usize = 16;
    /// Of a tile along the inner axis.
    const DEPTH: usize = 32;
    /// Columns that are multiplied at once: two tiles, each cut from a panel of W.
    const PANEL: usize = 2 * SIDE;
    /// Panels of two tiles that are cut together.
    const PANELS: usize = 2;
    /// Bytes of a tile.
    const TILE: usize = 1024;
    /// Bytes of the three tiles of one place.
    const PLACE: usize = 3 * TILE;
    /// Of the inner axis at once: then 256 rows of x stay in the second cache, beside four panels of W.
    const BLOCK: usize = 384;
    /// Rows of x at once.
    const ROWS: usize = 384;
    /// Rows of W that are fetched ahead of those that are cut.
    const AHEAD: usize = 24;
    /// Absolute numbers of x: largest bits, and the least that the largest of them may be (2^120, 2^-40).
    const RANGE: (u32, u32) = ((127 + 120) << 23, (127 - 40) << 23);
    pub fn is_available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| {
            let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            vectors && has_unit() && is_enabled() && is_permitted()
        })
    }

    /// CPUID, leaf 7: AMX-BF16 and AMX-TILE.
    fn has_unit() -> bool {
        // the first leaf says how many there are
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & (1 << 22 | 1 << 24) == 1 << 22 | 1 << 24
    }

    /// That the system saves the tiles when it switches threads.
    fn is_enabled() -> bool {
        let (low, high): (u32, u32);
        // SAFETY: AVX-512 was detected, so the system has set this register up
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
        let _ = high;
        low & (1 << 17 | 1 << 18) == 1 << 17 | 1 << 18
    }

    /// Linux gives the tiles' memory to processes that ask for it.
    fn is_permitted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: a call that takes two numbers; kernels that do not know it say so
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    /// The memory of a thread: tiles of x, two panels of W, tiles of y at the edge.
    #[derive(Default)]
    struct Scratch {
        x: Vec<Line>,
        panels: [Vec<Line>; 2],
        y: Vec<Line>,
    }

    /// A row of a tile.
    #[derive(Clone, Copy)]
    #[repr(C, align(64))]
    struct Line([u8; 64]);

    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }

    /// Where this many bytes can be written.
    fn room(lines: &mut Vec<Line>, bytes: usize) -> *mut u8 {
        if lines.len() * 64 < bytes {
            lines.resize(bytes / 64, Line([0; 64]));
        }
        lines.as_mut_ptr().cast()
    }

    pub unsafe fn product(m: Product) -> bool {
        SCRATCH.with_borrow_mut(|scratch| {
            // SAFETY: the caller's
            unsafe { blocks(m, scratch) }
        })
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn blocks(m: Product, scratch: &mut Scratch) -> bool {
        // SAFETY: the caller's; buffers are made for these sizes
        unsafe {
            let mut largest = _mm512_setzero_si512();
            for row in 0..m.rows {
                largest = largest_of(largest, m.x.add(row * m.x_row), m.depth);
            }
            let largest = _mm512_reduce_max_epu32(largest);
            if largest >= RANGE.0 || largest < RANGE.1 {
                return false;
            }
            configure();
            let at_once = near(m.rows);
            for row in (0..m.rows).step_by(at_once) {
                for first in (0..m.depth).step_by(BLOCK) {
                    let depth = BLOCK.min(m.depth - first);
                    let onto = if first > 0 { Onto::Y } else { m.onto };
                    let (x, w) = (m.x.add(row * m.x_row + first), m.w.add(first * WIDTH));
                    let (rows, y) = (at_once.min(m.rows - row), m.y.add(row * m.y_row));
                    block(Product { rows, depth, x, w, y, onto, ..m }, scratch);
                }
            }
            asm!("tilerelease");
        }
        true
    }

    /// Rows that are taken together, of so many: all, or nearly equal parts whose tiles stay near.
    fn near(rows: usize) -> usize {
        rows.div_ceil(rows.div_ceil(ROWS).max(1)).next_multiple_of(2 * SIDE).max(2 * SIDE)
    }

    /// The product over a part of the inner axis.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn block(m: Product, scratch: &mut Scratch) {
        let steps = m.depth.div_ceil(DEPTH);
        let (strip, n_strips) = (steps * PLACE, m.rows.div_ceil(SIDE));
        let x = room(&mut scratch.x, n_strips * strip);
        let edge = room(&mut scratch.y, 4 * TILE).cast::<f32>();
        let panels = scratch.panels.each_mut().map(|panels| room(panels, PANELS * 2 * strip));
        // the next panels are cut in as many parts as there are steps to do meanwhile
        let per_step = (DEPTH / 2).div_ceil(n_strips.div_ceil(2));
        // SAFETY: the caller's; buffers are made for these sizes
        unsafe {
            for i in 0..n_strips {
                let rows = SIDE.min(m.rows - i * SIDE);
                cut_rows(m.x.add(i * SIDE * m.x_row), m.x_row, rows, m.depth, x.add(i * strip));
            }
            let mut cutter = Cutter::new(&m, 0, steps, panels[0]);
            cutter.advance(usize::MAX);
            for (number, column) in (0..m.columns).step_by(PANELS * PANEL).enumerate() {
                let (w, is_bf16) = (panels[number % 2], cutter.is_bf16());
                cutter = Cutter::new(&m, column + PANELS * PANEL, steps, panels[(number + 1) % 2]);
                for i in (0..n_strips).step_by(2) {
                    for (panel, column) in (column..m.columns).step_by(PANEL).take(PANELS).enumerate() {
                        let place = Place {
                            x: x.add(i * strip),
                            w: w.add(panel * 2 * strip),
                            strip,
                            steps,
                            is_bf16,
                            onto: m.start().map(|(at, gap)| (at.add(i * SIDE * gap + column), gap)),
                            y: m.y.add(i * SIDE * m.y_row + column),
                            y_row: m.y_row,
                        };
                        let (rows, columns) = (m.rows - i * SIDE, m.columns - column);
                        let work = || cutter.advance(per_step);
                        match (rows, columns) {
                            (32.., PANEL..) => place.run(true, work),
                            (SIDE, PANEL..) => place.run(false, work),
                            _ => place.at_edge(rows.min(2 * SIDE), columns.min(PANEL), edge, work),
                        }
                    }
                }
                cutter.advance(usize::MAX);
            }
        }
    }

    /// Tiles of y: two by two, or one by two where only so many rows are left.
    #[derive(Clone, Copy)]
    struct Place {
        x: *const u8,
        w: *const u8,
        /// From a strip of tiles to the next.
        strip: usize,
        steps: usize,
        is_bf16: bool,
        onto: Option<(*const f32, usize)>,
        y: *mut f32,
        y_row: usize,
    }

    impl Place {
        /// The same in a buffer, from which `rows` rows of `columns` numbers are copied.
        #[target_feature(enable = "avx512f,avx512bw")]
        unsafe fn at_edge(self, rows: usize, columns: usize, edge: *mut f32, work: impl FnMut()) {
            // SAFETY: the caller's
            unsafe {
                if let Some((start, gap)) = self.onto {
                    for r in 0..rows {
                        std::ptr::copy_nonoverlapping(start.add(r * gap), edge.add(r * PANEL), columns);
                    }
                }
                let onto = self.onto.map(|_| (edge.cast_const(), PANEL));
                Place { y: edge, y_row: PANEL, onto, ..self }.run(rows > SIDE, work);
                for r in 0..rows {
                    std::ptr::copy_nonoverlapping(edge.add(r * PANEL), self.y.add(r * self.y_row), columns);
                }
            }
        }

        /// Sums over the steps, with other work after each.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        unsafe fn run(self, two: bool, mut work: impl FnMut()) {
            let row = 4 * self.y_row;
            // SAFETY: the caller's; tiles 0 to 3 hold y from here to the end
            unsafe {
                let (y, below) = (self.y, self.y.add(if two { SIDE * self.y_row } else { 0 }));
                match self.onto {
                    None => asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"),
                    // tiles 2 and 3 are loaded even where they stay unused: their rows are those of tiles 0 and 1 then
                    Some((start, gap)) => asm!(
                        "tileloadd tmm0, [{start} + {gap}]", "tileloadd tmm1, [{start} + {gap} + 64]",
                        "tileloadd tmm2, [{below} + {gap}]", "tileloadd tmm3, [{below} + {gap} + 64]",
                        start = in(reg) start, gap = in(reg) 4 * gap,
                        below = in(reg) start.add(if two { SIDE * gap } else { 0 }),
                    ),
                }
                for step in 0..self.steps {
                    let (x, w) = (self.x.add(step * PLACE), self.w.add(step * PLACE));
                    match (two, self.is_bf16) {
                        (true, false) => six_products(x, x.add(self.strip), w, w.add(self.strip)),
                        (true, true) => three_products(x, x.add(self.strip), w, w.add(self.strip)),
                        (false, false) => six_products_of_one(x, w, w.add(self.strip)),
                        (false, true) => three_products_of_one(x, w, w.add(self.strip)),
                    }
                    work();
                }
                asm!(
                    "tilestored [{y} + {row}], tmm0", "tilestored [{y} + {row} + 64], tmm1",
                    y = in(reg) y, row = in(reg) row
                );
                if two {
                    asm!(
                        "tilestored [{below} + {row}], tmm2", "tilestored [{below} + {row} + 64], tmm3",
                        below = in(reg) below, row = in(reg) row
                    );
                }
            }
        }
    }

    /// Every tile with 16 rows of 64 bytes.
    unsafe fn configure() {
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            row_bytes: [u16; 16],
            rows: [u8; 16],
        }
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        row_bytes[..8].fill(64);
        rows[..8].fill(SIDE as u8);
        let config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows };
        // SAFETY: the unit is there
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(readonly, nostack)) };
    }

    // The last three products come in one order, so that a W of bf16 gives the same sums in both ways.
    // Two strips of x in tiles 4 and 5, two of W in 6 and 7. One side is loaded again from product to product.

    #[inline]
    unsafe fn six_products(x0: *const u8, x1: *const u8, w0: *const u8, w1: *const u8) {
        // SAFETY: three tiles each
        unsafe {
            asm!(
                "tileloadd tmm4, [{x0} + {row}]", "tileloadd tmm6, [{w0} + {row} + 2048]",
                "tileloadd tmm5, [{x1} + {row}]", "tileloadd tmm7, [{w1} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm2, tmm5, tmm6", "tileloadd tmm6, [{w0} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7", "tdpbf16ps tmm3, tmm5, tmm7", "tileloadd tmm7, [{w1} + {row} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7", "tileloadd tmm4, [{x0} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7", "tileloadd tmm5, [{x1} + {row} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm2, tmm5, tmm6", "tileloadd tmm6, [{w0} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm7", "tdpbf16ps tmm3, tmm5, tmm7", "tileloadd tmm7, [{w1} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7", "tileloadd tmm4, [{x0} + {row} + 2048]",
                "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7", "tileloadd tmm5, [{x1} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7", "tileloadd tmm4, [{x0} + {row}]",
                "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7", "tileloadd tmm5, [{x1} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                x0 = in(reg) x0, x1 = in(reg) x1, w0 = in(reg) w0, w1 = in(reg) w1, row = in(reg) 64usize,
                options(nostack, readonly)
            );
        }
    }

    #[inline]
    unsafe fn three_products(x0: *const u8, x1: *const u8, w0: *const u8, w1: *const u8) {
        // SAFETY: three tiles of x, one of W each
        unsafe {
            asm!(
                "tileloadd tmm6, [{w0} + {row}]", "tileloadd tmm7, [{w1} + {row}]",
                "tileloadd tmm4, [{x0} + {row} + 1024]", "tileloadd tmm5, [{x1} + {row} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7", "tileloadd tmm4, [{x0} + {row} + 2048]",
                "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7", "tileloadd tmm5, [{x1} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7", "tileloadd tmm4, [{x0} + {row}]",
                "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7", "tileloadd tmm5, [{x1} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                x0 = in(reg) x0, x1 = in(reg) x1, w0 = in(reg) w0, w1 = in(reg) w1, row = in(reg) 64usize,
                options(nostack, readonly)
            );
        }
    }

    #[inline]
    unsafe fn six_products_of_one(x: *const u8, w0: *const u8, w1: *const u8) {
        // SAFETY: three tiles each
        unsafe {
            asm!(
                "tileloadd tmm4, [{x} + {row}]", "tileloadd tmm5, [{x} + {row} + 1024]",
                "tileloadd tmm6, [{w0} + {row} + 2048]", "tileloadd tmm7, [{w1} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm6, [{w0} + {row} + 1024]", "tileloadd tmm7, [{w1} + {row} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm0, tmm5, tmm6", "tdpbf16ps tmm1, tmm5, tmm7",
                "tileloadd tmm6, [{w0} + {row}]", "tileloadd tmm7, [{w1} + {row}]",
                "tdpbf16ps tmm0, tmm5, tmm6", "tdpbf16ps tmm1, tmm5, tmm7", "tileloadd tmm5, [{x} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm5, tmm6", "tdpbf16ps tmm1, tmm5, tmm7",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                x = in(reg) x, w0 = in(reg) w0, w1 = in(reg) w1, row = in(reg) 64usize,
                options(nostack, readonly)
            );
        }
    }

    #[inline]
    unsafe fn three_products_of_one(x: *const u8, w0: *const u8, w1: *const u8) {
        // SAFETY: three tiles of x, one of W each
        unsafe {
            asm!(
                "tileloadd tmm6, [{w0} + {row}]", "tileloadd tmm7, [{w1} + {row}]",
                "tileloadd tmm4, [{x} + {row} + 1024]", "tileloadd tmm5, [{x} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7", "tileloadd tmm4, [{x} + {row}]",
                "tdpbf16ps tmm0, tmm5, tmm6", "tdpbf16ps tmm1, tmm5, tmm7",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                x = in(reg) x, w0 = in(reg) w0, w1 = in(reg) w1, row = in(reg) 64usize,
                options(nostack, readonly)
            );
        }
    }

    /// The three numbers of bf16 that make up each f32, as the upper halves of theirs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn parts(v: __m512) -> [__m512i; 3] {
        let upper = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
        let rounded =
            |v: __m512| _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(v), _mm512_set1_epi32(0x8000)), upper);
        let first = rounded(v);
        let rest = _mm512_sub_ps(v, _mm512_castsi512_ps(first));
        let second = rounded(rest);
        let third = _mm512_sub_ps(rest, _mm512_castsi512_ps(second));
        [first, second, _mm512_castps_si512(third)]
    }

    /// Cuts up to 16 rows of x into tiles, three per step; rows beyond keep what they hold, which no other row sees.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn cut_rows(x: *const f32, x_row: usize, rows: usize, depth: usize, tiles: *mut u8) {
        // the upper halves of two vectors, one behind the other
        let upper: [u16; 32] = std::array::from_fn(|i| 2 * i as u16 + 1);
        // SAFETY: the caller's; masked loads do not touch what lies beyond
        unsafe {
            let upper = _mm512_loadu_si512(upper.as_ptr().cast());
            for row in 0..rows {
                let (x, tiles) = (x.add(row * x_row), tiles.add(row * 64));
                for k in (0..depth).step_by(DEPTH) {
                    let vector = |k| parts(_mm512_maskz_loadu_ps(first(depth, k), x.wrapping_add(k)));
                    for (part, (low, high)) in vector(k).into_iter().zip(vector(k + SIDE)).enumerate() {
                        let both = _mm512_permutex2var_epi16(low, upper, high);
                        _mm512_store_si512(tiles.add(k / DEPTH * PLACE + part * TILE).cast(), both);
                    }
                }
            }
        }
    }

    /// Lanes of a vector at `at` that lie before `end`.
    #[inline]
    fn first(end: usize, at: usize) -> u16 {
        match end.saturating_sub(at) {
            n if n < 16 => (1 << n) - 1,
            _ => u16::MAX,
        }
    }

    /// The largest of absolute numbers, as bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn largest_of(mut largest: __m512i, x: *const f32, n: usize) -> __m512i {
        let absolute = _mm512_set1_epi32(i32::MAX);
        for k in (0..n).step_by(SIDE) {
            // SAFETY: the caller's
            let v = unsafe { _mm512_maskz_loadu_ps(first(n, k), x.wrapping_add(k)) };
            largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_castps_si512(v), absolute));
        }
        largest
    }

    /// Cuts neighbouring panels of W into tiles, two rows at a time: a tile's row holds two numbers of each of 16 columns.
    struct Cutter {
        w: *const f32,
        panel: usize,
        depth: usize,
        columns: usize,
        steps: usize,
        tiles: *mut u8,
        /// Where it is: pairs of rows, step by step, of two panels beside each other, then of the next two.
        at: usize,
        end: usize,
        /// Where the next cutter begins.
        next: *const f32,
        /// Bits of all second and third numbers.
        rest: __m512i,
    }

    impl Cutter {
        /// Of the panels from this column on; there may be none.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        fn new(m: &Product, column: usize, steps: usize, tiles: *mut u8) -> Self {
            let columns = m.columns.saturating_sub(column).min(PANELS * PANEL);
            let end = steps * columns.div_ceil(PANEL) * DEPTH / 2;
            let (w, rest) = (m.w.wrapping_add(column / WIDTH * m.panel), _mm512_setzero_si512());
            // beside these panels, or further down the first ones
            let is_last = column + PANELS * PANEL >= m.columns;
            let next = if is_last { m.w.wrapping_add(m.depth * WIDTH) } else { w.wrapping_add(PANELS * 2 * m.panel) };
            Cutter { w, panel: m.panel, depth: m.depth, columns, steps, tiles, at: 0, end, next, rest }
        }

        /// Whether every number was one of bf16.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        fn is_bf16(&self) -> bool {
            let bits = _mm512_set1_epi32(i32::MAX); // a zero may have a sign
            _mm512_test_epi32_mask(self.rest, bits) == 0
        }

        /// The next pairs of rows of two panels.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        unsafe fn advance(&mut self, pairs: usize) {
            let upper = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
            let per_panel = self.steps * (DEPTH / 2);
            for _ in 0..pairs.min(self.end - self.at) {
                let (panel, pair) = (self.at / per_panel, self.at % per_panel);
                let (step, k) = (pair / (DEPTH / 2), 2 * pair);
                self.at += 1;
                let start = self.w.wrapping_add(2 * panel * self.panel);
                let ahead = match (k + AHEAD).checked_sub(self.depth) {
                    None => start.wrapping_add((k + AHEAD) * WIDTH),
                    Some(beyond) if self.at + per_panel > self.end => self.next.wrapping_add(beyond * WIDTH),
                    Some(beyond) => start.wrapping_add(2 * self.panel + beyond * WIDTH),
                };
                for half in 0..2 {
                    let is_there = panel * PANEL + half * SIDE < self.columns;
                    let lanes = |k| if is_there && k < self.depth { u16::MAX } else { 0 };
                    let row = start.wrapping_add(half * self.panel + k * WIDTH);
                    // SAFETY: masked loads do not touch what is not there; tiles have room for the panels
                    unsafe {
                        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(half * self.panel).cast());
                        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(half * self.panel + WIDTH).cast());
                        let even = parts(_mm512_maskz_loadu_ps(lanes(k), row));
                        let odd = parts(_mm512_maskz_loadu_ps(lanes(k + 1), row.wrapping_add(WIDTH)));
                        let rest = [even[1], odd[1], even[2], odd[2]];
                        self.rest = rest.into_iter().fold(self.rest, |all, rest| _mm512_or_si512(all, rest));
                        let tile = self.tiles.add((panel * 2 + half) * self.steps * PLACE + step * PLACE);
                        let tile = tile.add(pair % (DEPTH / 2) * 64);
                        for part in 0..3 {
                            let low = _mm512_srli_epi32::<16>(even[part]);
                            let both = _mm512_ternarylogic_epi32::<0xF8>(low, odd[part], upper); // low | (odd & upper)
                            _mm512_store_si512(tile.add(part * TILE).cast(), both);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::panels::testing::panels;
    use super::super::panels::{Onto, WIDTH};
    use super::*;
    use crate::ops::testing::{matrix, values};

    fn floats(shape: [usize; 2], seed: u64) -> Vec<f32> {
        values(&matrix(&shape, seed)).into_iter().map(|v| v as f32).collect()
    }

    /// `y + x W` or `x W`, rows with gaps, beside the definition in f64; the largest error in units of `Σ |x w|`.
    fn error([rows, depth, columns]: [usize; 3], onto: usize, w: impl Fn(f32) -> f32) -> f64 {
        let (x_row, y_row) = (depth + 2, columns + 3);
        let x = floats([rows, x_row], 1);
        let w: Vec<f32> = floats([depth, columns], 2).into_iter().map(w).collect();
        let (all, panel) = panels(&w, depth, columns);
        let mut y = vec![0.25; rows * y_row];
        let row: Vec<f32> = (0..columns).map(|c| c as f32 / 8.0).collect();
        let start = |c: usize| [0.0, c as f64 / 8.0, 0.25][onto];
        let onto = [Onto::Zero, Onto::Row(row.as_ptr()), Onto::Y][onto];
        let (at, to) = (x.as_ptr(), y.as_mut_ptr());
        let m = Product { rows, depth, columns, x: at, x_row, w: all.as_ptr(), panel, y: to, y_row, onto };
        // SAFETY: the caller has looked, and the buffers are of these sizes
        assert!(unsafe { product(m) });
        let mut worst = 0.0f64;
        for r in 0..rows {
            for c in 0..y_row {
                let found = f64::from(y[r * y_row + c]);
                if c >= columns {
                    assert_eq!(found, 0.25, "beyond the columns");
                    continue;
                }
                let terms = (0..depth).map(|k| f64::from(x[r * x_row + k]) * f64::from(w[k * columns + c]));
                let (sum, size) = terms.fold((start(c), start(c)), |(sum, size), term| (sum + term, size + term.abs()));
                worst = worst.max((found - sum).abs() / size);
            }
        }
        worst
    }

    /// As exact as sums in f32 are.
    #[test]
    fn products_of_every_tile_and_rest() {
        if !is_available() {
            return;
        }
        for rows in [1, 15, 16, 17, 31, 32, 33, 48, 70] {
            for [depth, columns] in [[1, 1], [31, 33], [32, 32], [37, 97], [384, 40], [385, 31], [800, 65]] {
                let size = [rows, depth, columns];
                for (kind, w) in
                    [("f32", (|w| w) as fn(f32) -> f32), ("bf16", |w| f32::from_bits(w.to_bits() >> 16 << 16))]
                {
                    let error = error(size, rows % 3, w);
                    assert!(error < 3e-7, "{size:?} {kind}: {error:e} of the sum of sizes");
                }
            }
        }
    }

    /// Two numbers whose product needs all six: with fewer it would be off by 2^-15 and more.
    #[test]
    fn every_bit_counts() {
        if !is_available() {
            return;
        }
        let (a, b) = (f32::from_bits(0x3FAA_AAAB), f32::from_bits(0x3FD5_5555)); // 4/3, 5/3
        let (x, w) = (vec![a; 33 * 32], vec![b; 32 * 32]); // panels of equal numbers
        let mut y = vec![0f32; 33 * 32];
        let (x, w, to, panel) = (x.as_ptr(), w.as_ptr(), y.as_mut_ptr(), 32 * WIDTH);
        let m =
            Product { rows: 33, depth: 32, columns: 32, x, x_row: 32, w, panel, y: to, y_row: 32, onto: Onto::Zero };
        // SAFETY: the buffers are of these sizes
        assert!(unsafe { product(m) });
        let expected = 32.0 * f64::from(a) * f64::from(b);
        for y in y {
            assert!((f64::from(y) / expected - 1.0).abs() < 2e-7, "{y} instead of {expected}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_and_y_is_untouched() {
        if !is_available() {
            return;
        }
        for x in [1e-13, 2e36, f32::INFINITY, f32::NAN] {
            let (x, w) = ([x; 64], [1f32; WIDTH]);
            let mut y = [7f32; 64];
            let (x, w, to, panel) = (x.as_ptr(), w.as_ptr(), y.as_mut_ptr(), WIDTH);
            let m =
                Product { rows: 64, depth: 1, columns: 1, x, x_row: 1, w, panel, y: to, y_row: 1, onto: Onto::Zero };
            // SAFETY: the buffers are of these sizes
            assert!(!unsafe { product(m) });
            assert_eq!(y, [7f32; 64]);
        }
    }
}
