//! Tensors as kernels see them: slices of f32.

use crate::error::{PrismError, Result};
use candle_core::{CpuStorage, Device, Shape, Storage, StorageRef, Tensor};
use std::ops::Deref;

/// A tensor [rows, …] of f32 on the CPU, every row contiguous; rows may lie apart, as those of a view of some columns
/// do.
pub(crate) struct Rows {
    tensor: Tensor,
    /// How many rows.
    pub n: usize,
    /// Numbers in a row.
    pub width: usize,
    /// From one row to the next.
    pub stride: usize,
}

impl Rows {
    /// The rows of the first axis; copied where a row is not contiguous.
    ///
    /// # Errors
    /// `INTERNAL` for a scalar.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let mut width = 1;
        let mut contiguous = true;
        for (size, stride) in tensor.dims().iter().zip(tensor.stride()).skip(1).rev() {
            contiguous &= *size == 1 || *stride == width;
            width *= size;
        }
        let tensor = if contiguous { tensor.clone() } else { tensor.contiguous()? };
        let stride = if tensor.dim(0)? > 1 { tensor.stride()[0] } else { width };
        Ok(Rows { n: tensor.dim(0)?, width, stride, tensor })
    }

    /// All numbers from the first row's first to the last row's last, what lies between rows included.
    ///
    /// # Errors
    /// `INTERNAL` for other types than f32, and other devices.
    pub fn numbers(&self) -> Result<Numbers<'_>> {
        let (storage, layout) = self.tensor.storage_and_layout();
        let start = layout.start_offset();
        let length = if self.n == 0 { 0 } else { (self.n - 1) * self.stride + self.width };
        let numbers = Numbers { storage, start, end: start + length };
        match &*numbers.storage {
            Storage::Cpu(CpuStorage::F32(all)) if numbers.end <= all.len() => Ok(numbers),
            _ => Err(PrismError::Internal { place: "kernel".into(), problem: "needs f32 on the CPU".into() }),
        }
    }
}

/// The numbers of a tensor. They cannot be written while this lives.
pub(crate) struct Numbers<'a> {
    storage: StorageRef<'a>,
    start: usize,
    end: usize,
}

impl Deref for Numbers<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(all)) => &all[self.start..self.end],
            _ => &[], // `Rows::numbers` has looked
        }
    }
}

/// A tensor to be, which begins a cache line. It is not filled with zeros first: that would cost a tenth of a small
/// model's time.
pub(crate) struct Fresh {
    data: Vec<f32>,
    first: usize,
    shape: Shape,
}

/// Numbers of a cache line.
const LINE: usize = 16;

impl Fresh {
    /// Of this shape.
    pub fn new(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let data: Vec<f32> = Vec::with_capacity(shape.elem_count() + LINE - 1);
        let first = data.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE - 1);
        Fresh { data, first, shape }
    }

    /// Where its numbers are to be written, row-major.
    pub fn place(&mut self) -> Shared {
        Shared(self.data.as_mut_ptr().wrapping_add(self.first))
    }

    /// The tensor.
    ///
    /// # Safety
    /// Every number has been written.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub unsafe fn written(mut self) -> Result<Tensor> {
        let (first, n) = (self.first, self.shape.elem_count());
        self.data.resize(first, 0.0);
        // SAFETY: that many were reserved, and the caller has written them
        unsafe { self.data.set_len(first + n) };
        let all = Tensor::from_vec(self.data, first + n, &Device::Cpu)?;
        Ok(all.narrow(0, first, n)?.reshape(self.shape)?)
    }
}

/// A place that several threads write, each its own part.
pub(crate) struct Shared<T = f32>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: only an address; who writes through it keeps parts apart
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Of these numbers.
    pub fn of(numbers: &mut [T]) -> Self {
        Shared(numbers.as_mut_ptr())
    }

    /// The same from this offset on.
    pub fn from(self, offset: usize) -> Self {
        Shared(self.at(offset))
    }

    /// The address of the number at this offset.
    pub fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}
