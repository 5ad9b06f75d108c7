//! The numbers of a whole result, in one piece: chunks write those of their rows where they stay, so that nothing is put
//! together afterwards and nothing is cleared beforehand.

use crate::error::{PrismError, Result};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows of `width` numbers each, most of them still to be written.
pub(crate) struct Whole {
    numbers: Vec<f32>,
    rows: usize,
    width: usize,
    /// Numbers of which there are places.
    placed: usize,
    handed_out: AtomicUsize,
}

/// The places of some consecutive rows.
pub(crate) struct Places<'a> {
    left: &'a mut [MaybeUninit<f32>],
    width: usize,
    handed_out: &'a AtomicUsize,
}

impl Whole {
    /// Room for `rows` rows of `width` numbers.
    pub fn new(rows: usize, width: usize) -> Self {
        Whole { numbers: Vec::with_capacity(rows * width), rows, width, placed: 0, handed_out: AtomicUsize::new(0) }
    }

    /// The places of the next so many rows each, one behind the other.
    ///
    /// # Errors
    /// `INTERNAL` where there are not so many.
    pub fn places(&mut self, rows: impl IntoIterator<Item = usize>) -> Result<Vec<Places<'_>>> {
        let (width, handed_out) = (self.width, &self.handed_out);
        // no number has two places, or what was handed out could not be counted
        let mut left = &mut self.numbers.spare_capacity_mut()[self.placed..self.rows * width];
        let mut places = Vec::new();
        for rows in rows {
            let (first, rest) = left.split_at_mut_checked(rows * width).ok_or_else(|| internal("has too few rows"))?;
            self.placed += first.len();
            places.push(Places { left: first, width, handed_out });
            left = rest;
        }
        Ok(places)
    }

    /// All numbers.
    ///
    /// # Errors
    /// `INTERNAL` where a row was not handed out.
    pub fn numbers(mut self) -> Result<Vec<f32>> {
        let n = self.rows * self.width;
        if self.handed_out.into_inner() != n {
            return Err(internal("was not written to its end"));
        }
        // SAFETY: that many were reserved; each was initialised when its row was handed out, which happens once
        unsafe { self.numbers.set_len(n) };
        Ok(self.numbers)
    }
}

impl<'a> Places<'a> {
    /// The next row, cleared: its owner writes it while it is in the cache.
    ///
    /// # Errors
    /// `INTERNAL` behind the last one.
    pub fn row(&mut self) -> Result<&'a mut [f32]> {
        self.piece(self.width)
    }

    /// The next `n` numbers, cleared: a part of a row that is too long to stay in the cache.
    ///
    /// # Errors
    /// `INTERNAL` where fewer are left.
    pub fn piece(&mut self, n: usize) -> Result<&'a mut [f32]> {
        let left = std::mem::take(&mut self.left);
        let (piece, rest) = left.split_at_mut_checked(n).ok_or_else(|| internal("has too few rows"))?;
        self.left = rest;
        piece.iter_mut().for_each(|number| {
            number.write(0.0);
        });
        self.handed_out.fetch_add(n, Ordering::Relaxed);
        // SAFETY: written just now
        Ok(unsafe { &mut *(std::ptr::from_mut(piece) as *mut [f32]) })
    }
}

fn internal(problem: &str) -> PrismError {
    PrismError::Internal { place: "a result".into(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_where_their_chunks_come() {
        let mut whole = Whole::new(3, 2);
        let [mut first, mut second] = whole.places([1, 2]).unwrap().try_into().ok().unwrap();
        second.piece(1).unwrap();
        second.piece(1).unwrap()[0] = 4.0;
        first.row().unwrap().copy_from_slice(&[1.0, 2.0]);
        second.row().unwrap()[0] = 5.0;
        assert_eq!(first.row().unwrap_err().code(), "INTERNAL");
        assert_eq!(whole.numbers().unwrap(), [1.0, 2.0, 0.0, 4.0, 5.0, 0.0]);
    }

    #[test]
    fn what_was_not_written_is_never_read() {
        let mut whole = Whole::new(2, 2);
        whole.places([2]).unwrap()[0].row().unwrap().fill(1.0);
        assert_eq!(whole.numbers().unwrap_err().code(), "INTERNAL");
        assert_eq!(Whole::new(2, 2).places([1, 2]).err().unwrap().code(), "INTERNAL");
        assert!(Whole::new(0, 5).numbers().unwrap().is_empty());
        // the same row twice is not two rows
        let mut whole = Whole::new(2, 1);
        whole.places([1]).unwrap()[0].row().unwrap();
        assert_eq!(whole.places([2]).err().unwrap().code(), "INTERNAL");
        assert_eq!(whole.numbers().unwrap_err().code(), "INTERNAL");
    }
}
