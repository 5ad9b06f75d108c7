//! From a stored tensor into the buffer where its numbers stay: read, converted and laid out a block at a time, so that
//! no tensor is ever held twice, whatever its type and order on disk.

use super::file::StoredFile;
use super::header::Dtype;
use crate::error::Result;
use rayon::prelude::*;
use std::ops::Range;

/// Numbers of a block: enough to read at full speed, and few enough for each of `MANY` threads to have one.
const BLOCK: usize = 1 << 16;
/// With more threads, blocks become smaller.
const MANY: usize = 64;
/// Rows of a block of a matrix that is turned: what goes to one place of the buffer is at least this long.
const TURNED_ROWS: usize = 64;
/// What is turned at once, rows × columns: few enough cache lines to stay near.
const TILE: (usize, usize) = (8, 16);

/// A stored matrix, row-major: a tensor whose last axis are the columns and all others the rows, or some of its rows.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) file: &'a StoredFile,
    pub(super) dtype: Dtype,
    /// Its first byte in the file.
    pub(super) start: u64,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
}

/// Where the rows or the columns of a matrix go: its element (r, c) goes to `rows.at(r) + columns.at(c)` of a buffer.
#[derive(Debug, Clone)]
pub enum Axis {
    /// Index i to `start + i · step`.
    Even {
        /// Of index 0.
        start: usize,
        /// From one to the next.
        step: usize,
    },
    /// Index i to `list[i]`.
    Listed(Vec<usize>),
}

impl Axis {
    fn at(&self, i: usize) -> usize {
        match self {
            Axis::Even { start, step } => start + i * step,
            Axis::Listed(list) => list[i],
        }
    }

    /// `n` indices to where `f` says that their places lie.
    pub fn then(&self, n: usize, f: impl Fn(usize) -> usize) -> Self {
        Axis::Listed((0..n).map(|i| f(self.at(i))).collect())
    }

    /// `n` indices as runs that go to places side by side: their indices, and the place of the first. `None` where runs
    /// are shorter than a cache line on the whole.
    fn runs(&self, n: usize) -> Option<Vec<(Range<usize>, usize)>> {
        const SHORTEST: usize = 16;
        if let Axis::Even { start, step } = self {
            return (*step == 1).then(|| vec![(0..n, *start)]);
        }
        let mut runs: Vec<(Range<usize>, usize)> = Vec::new();
        for i in 0..n {
            match runs.last_mut() {
                Some((run, place)) if *place + run.len() == self.at(i) => run.end += 1,
                _ => runs.push((i..i + 1, self.at(i))),
            }
        }
        (n + SHORTEST > SHORTEST * runs.len()).then_some(runs)
    }
}

/// The memory of a thread while it reads: the bytes of a block and its numbers.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    numbers: Vec<f32>,
}

impl Matrix<'_> {
    /// Bytes that `threads` threads take for themselves while they read.
    pub fn scratch_bytes(threads: usize) -> u64 {
        (threads.min(MANY) * BLOCK * (4 + 4)) as u64
    }

    /// Some of its rows.
    pub fn rows(&self, range: Range<usize>) -> Self {
        let start = self.start + (range.start * self.columns * self.dtype.size()) as u64;
        Matrix { start, rows: range.len(), ..*self }
    }

    /// Fills a buffer with it, in its own order; every thread of the pool takes a part.
    ///
    /// # Errors
    /// `IO_ERROR`, `CHECKPOINT_INVALID` where the file was cut short meanwhile.
    pub fn copy(&self, into: &mut [f32]) -> Result<()> {
        let block = block();
        into.par_chunks_mut(block).enumerate().try_for_each_init(Scratch::default, |scratch, (i, part)| {
            part.copy_from_slice(self.numbers(i * block, part.len(), scratch)?);
            Ok(())
        })
    }

    /// Whether it holds the same numbers as a matrix of the same size; NaN equals nothing.
    ///
    /// # Errors
    /// As [`Matrix::copy`].
    pub fn equals(&self, other: &Matrix) -> Result<bool> {
        let (mut a, mut b, total) = (Scratch::default(), Scratch::default(), self.rows * self.columns);
        for first in (0..total).step_by(BLOCK) {
            let n = BLOCK.min(total - first);
            if self.numbers(first, n, &mut a)? != other.numbers(first, n, &mut b)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts every element at its place in a buffer.
    ///
    /// # Errors
    /// As [`Matrix::copy`].
    pub fn place(&self, into: &mut [f32], rows: &Axis, columns: &Axis) -> Result<()> {
        let runs = columns.runs(self.columns);
        let widest = if runs.is_some() { block() } else { block() / TURNED_ROWS };
        let width = self.columns.clamp(1, widest);
        let height = block() / width;
        let mut scratch = Scratch::default();
        for c in (0..self.columns).step_by(width) {
            let cs = c..self.columns.min(c + width);
            for r in (0..self.rows).step_by(height) {
                let rs = r..self.rows.min(r + height);
                let numbers = self.block(rs.clone(), cs.clone(), &mut scratch)?;
                if let Some(runs) = &runs {
                    for (r, row) in rs.zip(numbers.chunks(cs.len())) {
                        let first = rows.at(r);
                        for (run, place) in runs {
                            let some = run.start.max(cs.start)..run.end.min(cs.end);
                            if some.is_empty() {
                                continue;
                            }
                            let start = first + place + some.start - run.start;
                            let row = &row[some.start - cs.start..some.end - cs.start];
                            into[start..start + row.len()].copy_from_slice(row);
                        }
                    }
                } else {
                    turn(numbers, into, rs.map(|r| rows.at(r)).collect(), cs.clone().map(|c| columns.at(c)).collect());
                }
            }
        }
        Ok(())
    }

    /// A block of it, row-major.
    fn block<'s>(&self, rows: Range<usize>, columns: Range<usize>, scratch: &'s mut Scratch) -> Result<&'s [f32]> {
        if columns.len() == self.columns {
            return self.numbers(rows.start * self.columns, rows.len() * self.columns, scratch);
        }
        let size = self.dtype.size();
        let line = columns.len() * size;
        scratch.bytes.resize(rows.len() * line, 0);
        for (r, bytes) in rows.zip(scratch.bytes.chunks_mut(line)) {
            self.file.read_at(bytes, self.start + ((r * self.columns + columns.start) * size) as u64)?;
        }
        Ok(scratch.converted(self.dtype))
    }

    /// `n` numbers from number `first` on.
    fn numbers<'s>(&self, first: usize, n: usize, scratch: &'s mut Scratch) -> Result<&'s [f32]> {
        scratch.bytes.resize(n * self.dtype.size(), 0);
        self.file.read_at(&mut scratch.bytes, self.start + (first * self.dtype.size()) as u64)?;
        Ok(scratch.converted(self.dtype))
    }
}

/// Numbers of a block in this pool of threads, of which there are 1024 at most.
fn block() -> usize {
    BLOCK * MANY / rayon::current_num_threads().max(MANY)
}

impl Scratch {
    fn converted(&mut self, dtype: Dtype) -> &[f32] {
        self.numbers.clear();
        dtype.extend_f32(&self.bytes, &mut self.numbers);
        &self.numbers
    }
}

/// Puts a block's element (r, c) at `rows[r] + columns[c]`, tile by tile.
fn turn(block: &[f32], into: &mut [f32], rows: Vec<usize>, columns: Vec<usize>) {
    let width = columns.len();
    for (i, rows) in rows.chunks(TILE.0).enumerate() {
        for (j, columns) in columns.chunks(TILE.1).enumerate() {
            for (c, column) in columns.iter().enumerate() {
                let from = i * TILE.0 * width + j * TILE.1 + c;
                for (r, row) in rows.iter().enumerate() {
                    into[row + column] = block[from + r * width];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of numbers that all three types hold exactly, and the numbers.
    fn numbers(dtype: Dtype, n: usize) -> (Vec<u8>, Vec<f32>) {
        let numbers: Vec<f32> = (0..n).map(|i| (i * 7919 % 509) as f32 * 0.25 - 30.0).collect();
        let numbers: Vec<f32> = numbers.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
        let bytes = |x: &f32| match dtype {
            Dtype::F32 => x.to_le_bytes().to_vec(),
            Dtype::F16 => half::f16::from_f32(*x).to_le_bytes().to_vec(),
            Dtype::BF16 => half::bf16::from_f32(*x).to_le_bytes().to_vec(),
        };
        (numbers.iter().flat_map(bytes).collect(), numbers)
    }

    /// A file of a few bytes and then this matrix, for as long as `f` runs.
    fn stored(dtype: Dtype, rows: usize, columns: usize, f: impl FnOnce(Matrix, &[f32])) {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (bytes, numbers) = numbers(dtype, rows * columns);
        let (dir, name) = (std::env::temp_dir(), format!("logit-prism-place-{}-{next}", std::process::id()));
        std::fs::write(dir.join(&name), [b"head".to_vec(), bytes].concat()).unwrap();
        let file = StoredFile::open(&dir, &name).unwrap();
        std::fs::remove_file(dir.join(&name)).unwrap();
        f(Matrix { file: &file, dtype, start: 4, rows, columns }, &numbers);
    }

    /// More than a block in each direction, exactly one, one number, and nothing.
    const SHAPES: [(usize, usize); 9] =
        [(3, 5), (1, 1), (0, 4), (4, 0), (70, 2100), (2100, 70), (64, 1024), (2, BLOCK + 3), (BLOCK + 3, 2)];

    #[test]
    fn a_copy_is_the_matrix() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            for (rows, columns) in SHAPES {
                stored(dtype, rows, columns, |matrix, numbers| {
                    let mut buffer = vec![f32::NAN; rows * columns];
                    matrix.copy(&mut buffer).unwrap();
                    assert_eq!(buffer, numbers, "{dtype:?} {rows} × {columns}");
                });
            }
        }
    }

    #[test]
    fn every_element_lies_where_the_axes_say_and_nothing_else_is_touched() {
        let in_panels = |rows: usize, c: usize| c / 16 * 16 * rows + c % 16;
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            for (rows, columns) in SHAPES {
                let width = rows + 3; // of a row of the buffer, where the matrix is turned
                let turned = (Axis::Even { start: 2, step: 1 }, Axis::Even { start: 0, step: width });
                let backwards = Axis::Listed((0..rows).rev().collect());
                let wide = columns + 1;
                let listed = Axis::Listed((0..columns).map(|c| columns - c).collect());
                for (to_row, to_column, size) in [
                    (turned.0, turned.1.clone(), width * columns),
                    (backwards, turned.1, width * columns),
                    (Axis::Even { start: 1, step: wide }, Axis::Even { start: 0, step: 1 }, 1 + wide * rows),
                    (Axis::Even { start: 0, step: wide }, listed, wide * rows),
                    (
                        Axis::Even { start: 0, step: 16 },
                        Axis::Even { start: 0, step: 1 }.then(columns, |c| in_panels(rows, c)),
                        columns.div_ceil(16) * 16 * rows,
                    ),
                ] {
                    stored(dtype, rows, columns, |matrix, numbers| {
                        let (mut found, mut expected) = (vec![-1.0; size], vec![-1.0; size]);
                        for r in 0..rows {
                            (0..columns)
                                .for_each(|c| expected[to_row.at(r) + to_column.at(c)] = numbers[r * columns + c]);
                        }
                        matrix.place(&mut found, &to_row, &to_column).unwrap();
                        assert!(found == expected, "{dtype:?} {rows} × {columns}, {to_row:?}, {to_column:?}");
                    });
                }
            }
        }
    }

    #[test]
    fn some_rows_are_a_matrix() {
        stored(Dtype::BF16, 7, 3, |matrix, numbers| {
            let some = matrix.rows(2..6).rows(1..3);
            let mut buffer = [0.0; 6];
            some.copy(&mut buffer).unwrap();
            assert_eq!((some.rows, &buffer[..]), (2, &numbers[9..15]));
        });
    }

    #[test]
    fn equal_numbers_are_equal_in_any_type() {
        for (rows, columns) in [(2, 3), (3, BLOCK)] {
            stored(Dtype::F32, rows, columns, |wide, _| {
                stored(Dtype::BF16, rows, columns, |narrow, _| assert!(wide.equals(&narrow).unwrap()));
                stored(Dtype::F32, rows + 1, columns, |longer, _| {
                    assert!(wide.equals(&longer.rows(0..rows)).unwrap());
                    assert!(!wide.equals(&longer.rows(1..rows + 1)).unwrap());
                });
            });
        }
    }
}
