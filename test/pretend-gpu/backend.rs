//! A GPU that is none: candle's placeholder for CUDA, filled in. Tensors of this device lie apart from the CPU's and are
//! computed on the host, under the rules that candle's CUDA backend has: two devices do not mix; there are kernels for some
//! types only; a kernel of no threads and an allocation of no bytes are errors; products take operands that are contiguous or
//! exactly transposed. One rule more: an index out of range is reported here, where a GPU reads whatever lies there.
//!
//! `run.mjs` puts this file in the place of candle-core's src/dummy_cuda_backend.rs, and the kernels' sources beside it.

#![allow(dead_code, missing_docs)]
use crate::backend::{BackendDevice, BackendStorage};
use crate::cpu_backend::CpuDevice;
use crate::op::{BinaryOpT, CmpOp, ReduceOp, UnaryOpT};
use crate::{CpuStorage, DType, Error, Layout, Result, Shape};
use std::sync::atomic::{AtomicU64, Ordering};

static LAUNCHES: AtomicU64 = AtomicU64::new(0);
static READS: AtomicU64 = AtomicU64::new(0);

/// Kernels that were launched, and times that the host waited for what they wrote.
pub fn counts() -> (u64, u64) {
    (LAUNCHES.load(Ordering::Relaxed), READS.load(Ordering::Relaxed))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceId(usize);

#[derive(Debug, Clone)]
pub struct CudaDevice(DeviceId);

#[derive(Debug)]
pub struct CudaStorage {
    held: CpuStorage,
    device: CudaDevice,
}

const KERNELS: [&str; 8] = [
    include_str!("kernels/affine.cu"),
    include_str!("kernels/binary.cu"),
    include_str!("kernels/cast.cu"),
    include_str!("kernels/fill.cu"),
    include_str!("kernels/indexing.cu"),
    include_str!("kernels/reduce.cu"),
    include_str!("kernels/ternary.cu"),
    include_str!("kernels/unary.cu"),
];

/// Launches a kernel for so many numbers: it exists, and has something to do.
fn launch(name: &str, numbers: usize) -> Result<()> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = |text: &str| {
        text.match_indices(name)
            .any(|(at, _)| !text[..at].ends_with(is_word) && !text[at + name.len()..].starts_with(is_word))
    };
    if !KERNELS.iter().any(|text| names(text)) {
        return Err(Error::Msg(format!("pretend GPU: there is no kernel {name}")).bt());
    }
    filled(name, numbers)?;
    LAUNCHES.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// What has no numbers is neither allocated nor computed.
fn filled(what: &str, numbers: usize) -> Result<()> {
    match numbers {
        0 => Err(Error::Msg(format!("pretend GPU: CUDA_ERROR_INVALID_VALUE, {what} of no numbers")).bt()),
        _ => Ok(()),
    }
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(Error::Msg(format!("pretend GPU: {what} is not needed here")).bt())
}

impl CudaStorage {
    fn of(&self, held: Result<CpuStorage>) -> Result<Self> {
        Ok(CudaStorage { held: held?, device: self.device.clone() })
    }

    fn launch(&self, root: &str, numbers: usize) -> Result<()> {
        launch(&format!("{root}_{}", self.dtype().as_str()), numbers)
    }

    pub fn transfer_to_device(&self, _: &CudaDevice) -> Result<Self> {
        unsupported("a second GPU")
    }
}

impl CudaDevice {
    pub fn new_with_stream(ordinal: usize) -> Result<Self> {
        Ok(CudaDevice(DeviceId(ordinal)))
    }

    pub fn id(&self) -> DeviceId {
        self.0
    }

    fn with(&self, held: CpuStorage) -> CudaStorage {
        CudaStorage { held, device: self.clone() }
    }
}

/// As candle's `gemm_config`.
fn check_strides((b, m, n, k): (usize, usize, usize, usize), lhs: &Layout, rhs: &Layout) -> Result<()> {
    let fits = |layout: &Layout, rows: usize, columns: usize| {
        let stride = layout.stride();
        let (by_row, by_column) = (stride[stride.len() - 2], stride[stride.len() - 1]);
        let contiguous = (by_column == 1 || columns == 1) && (by_row == columns || rows == 1);
        let transposed = (by_column == rows || columns == 1) && (by_row == 1 || rows == 1);
        let evenly = match (&stride[..stride.len() - 2], layout.dims()) {
            ([], _) | ([_], _) => true,
            ([outer, inner], [a, b, ..]) => *outer == inner * b || *a == 1 || *b == 1,
            _ => false,
        };
        (contiguous || transposed) && evenly
    };
    if fits(lhs, m, k) && fits(rhs, k, n) {
        return filled("a product", b * m * n * k);
    }
    Err(Error::Msg(format!("pretend GPU: a product of {lhs:?} and {rhs:?}")).bt())
}

impl BackendStorage for CudaStorage {
    type Device = CudaDevice;

    fn try_clone(&self, layout: &Layout) -> Result<Self> {
        self.of(self.held.try_clone(layout))
    }

    fn dtype(&self) -> DType {
        self.held.dtype()
    }

    fn device(&self) -> &Self::Device {
        &self.device
    }

    fn const_set(&mut self, value: crate::scalar::Scalar, layout: &Layout) -> Result<()> {
        self.launch("const_set", layout.shape().elem_count())?;
        self.held.const_set(value, layout)
    }

    fn to_cpu_storage(&self) -> Result<CpuStorage> {
        READS.fetch_add(1, Ordering::Relaxed);
        self.held.to_cpu_storage()
    }

    fn affine(&self, layout: &Layout, mul: f64, add: f64) -> Result<Self> {
        self.launch("affine", layout.shape().elem_count())?;
        self.of(self.held.affine(layout, mul, add))
    }

    fn powf(&self, layout: &Layout, exponent: f64) -> Result<Self> {
        self.launch("upowf", layout.shape().elem_count())?;
        self.of(self.held.powf(layout, exponent))
    }

    fn elu(&self, layout: &Layout, alpha: f64) -> Result<Self> {
        self.launch("uelu", layout.shape().elem_count())?;
        self.of(self.held.elu(layout, alpha))
    }

    fn reduce_op(&self, op: ReduceOp, layout: &Layout, axes: &[usize]) -> Result<Self> {
        let name = match op {
            ReduceOp::Sum => "fast_sum",
            ReduceOp::Min => "fast_min",
            ReduceOp::Max => "fast_max",
            ReduceOp::ArgMin => "fast_argmin",
            ReduceOp::ArgMax => "fast_argmax",
        };
        self.launch(name, layout.shape().elem_count())?;
        self.of(self.held.reduce_op(op, layout, axes))
    }

    fn cmp(&self, op: CmpOp, rhs: &Self, lhs_l: &Layout, rhs_l: &Layout) -> Result<Self> {
        let name = match op {
            CmpOp::Eq => "eq",
            CmpOp::Ne => "ne",
            CmpOp::Lt => "lt",
            CmpOp::Le => "le",
            CmpOp::Gt => "gt",
            CmpOp::Ge => "ge",
        };
        self.launch(name, lhs_l.shape().elem_count())?;
        self.of(self.held.cmp(op, &rhs.held, lhs_l, rhs_l))
    }

    fn to_dtype(&self, layout: &Layout, dtype: DType) -> Result<Self> {
        let name = format!("cast_{}_{}", self.dtype().as_str(), dtype.as_str());
        launch(&name, layout.shape().elem_count())?;
        self.of(self.held.to_dtype(layout, dtype))
    }

    fn unary_impl<B: UnaryOpT>(&self, layout: &Layout) -> Result<Self> {
        self.launch(B::KERNEL, layout.shape().elem_count())?;
        self.of(self.held.unary_impl::<B>(layout))
    }

    fn binary_impl<B: BinaryOpT>(&self, rhs: &Self, lhs_l: &Layout, rhs_l: &Layout) -> Result<Self> {
        self.launch(B::KERNEL, lhs_l.shape().elem_count())?;
        self.of(self.held.binary_impl::<B>(&rhs.held, lhs_l, rhs_l))
    }

    fn where_cond(&self, layout: &Layout, t: &Self, t_l: &Layout, f: &Self, f_l: &Layout) -> Result<Self> {
        t.launch(&format!("where_{}", self.dtype().as_str()), layout.shape().elem_count())?;
        self.of(self.held.where_cond(layout, &t.held, t_l, &f.held, f_l))
    }

    fn index_select(&self, ids: &Self, l: &Layout, ids_l: &Layout, axis: usize) -> Result<Self> {
        let numbers = l.shape().elem_count() / l.dims()[axis].max(1) * ids_l.shape().elem_count();
        self.launch(&format!("is_{}", ids.dtype().as_str()), numbers)?;
        self.of(self.held.index_select(&ids.held, l, ids_l, axis))
    }

    fn gather(&self, l: &Layout, ids: &Self, ids_l: &Layout, axis: usize) -> Result<Self> {
        self.launch(&format!("gather_{}", ids.dtype().as_str()), ids_l.shape().elem_count())?;
        self.of(self.held.gather(l, &ids.held, ids_l, axis))
    }

    fn scatter_set(
        &mut self,
        l: &Layout,
        ids: &Self,
        ids_l: &Layout,
        src: &Self,
        src_l: &Layout,
        axis: usize,
    ) -> Result<()> {
        self.launch(&format!("s_{}", ids.dtype().as_str()), src_l.shape().elem_count())?;
        self.held.scatter_set(l, &ids.held, ids_l, &src.held, src_l, axis)
    }

    fn scatter_add_set(
        &mut self,
        l: &Layout,
        ids: &Self,
        ids_l: &Layout,
        src: &Self,
        src_l: &Layout,
        axis: usize,
    ) -> Result<()> {
        self.launch(&format!("sa_{}", ids.dtype().as_str()), src_l.shape().elem_count())?;
        self.held.scatter_add_set(l, &ids.held, ids_l, &src.held, src_l, axis)
    }

    fn index_add(
        &self,
        l: &Layout,
        ids: &Self,
        ids_l: &Layout,
        src: &Self,
        src_l: &Layout,
        axis: usize,
    ) -> Result<Self> {
        self.launch(&format!("ia_{}", ids.dtype().as_str()), src_l.shape().elem_count())?;
        self.of(self.held.index_add(l, &ids.held, ids_l, &src.held, src_l, axis))
    }

    fn matmul(&self, rhs: &Self, sizes: (usize, usize, usize, usize), lhs_l: &Layout, rhs_l: &Layout) -> Result<Self> {
        check_strides(sizes, lhs_l, rhs_l)?;
        LAUNCHES.fetch_add(1, Ordering::Relaxed);
        let dtype = self.dtype();
        if dtype != rhs.dtype() {
            return Err(Error::Msg(format!("pretend GPU: a product of {dtype:?} and {:?}", rhs.dtype())).bt());
        }
        if !matches!(dtype, DType::BF16 | DType::F16) {
            return self.of(self.held.matmul(&rhs.held, sizes, lhs_l, rhs_l));
        }
        // sums in f32, as cuBLAS takes them where it is told to; what lies between rows is not read
        let wide = |of: &Self, layout: &Layout| -> Result<(CpuStorage, Layout)> {
            let whole = layout.shape().clone();
            let rows = of.held.to_dtype(layout, DType::F32)?;
            Ok((rows, Layout::contiguous(whole)))
        };
        let ((a, a_l), (b, b_l)) = (wide(self, lhs_l)?, wide(rhs, rhs_l)?);
        let (count, m, n, _) = sizes;
        let product = a.matmul(&b, sizes, &a_l, &b_l)?;
        self.of(product.to_dtype(&Layout::contiguous(Shape::from((count, m, n))), dtype))
    }

    fn copy_strided_src(&self, dst: &mut Self, offset: usize, layout: &Layout) -> Result<()> {
        if layout.shape().elem_count() > 0 {
            LAUNCHES.fetch_add(1, Ordering::Relaxed);
        }
        self.held.copy_strided_src(&mut dst.held, offset, layout)
    }

    fn copy2d(
        &self,
        dst: &mut Self,
        d1: usize,
        d2: usize,
        src_s: usize,
        dst_s: usize,
        src_o: usize,
        dst_o: usize,
    ) -> Result<()> {
        if d1 * d2 > 0 {
            self.launch("copy2d", d1 * d2)?;
        }
        self.held.copy2d(&mut dst.held, d1, d2, src_s, dst_s, src_o, dst_o)
    }

    fn conv1d(&self, _: &Layout, _: &Self, _: &Layout, _: &crate::conv::ParamsConv1D) -> Result<Self> {
        unsupported("a convolution")
    }

    fn conv_transpose1d(
        &self,
        _: &Layout,
        _: &Self,
        _: &Layout,
        _: &crate::conv::ParamsConvTranspose1D,
    ) -> Result<Self> {
        unsupported("a convolution")
    }

    fn conv2d(&self, _: &Layout, _: &Self, _: &Layout, _: &crate::conv::ParamsConv2D) -> Result<Self> {
        unsupported("a convolution")
    }

    fn conv_transpose2d(
        &self,
        _: &Layout,
        _: &Self,
        _: &Layout,
        _: &crate::conv::ParamsConvTranspose2D,
    ) -> Result<Self> {
        unsupported("a convolution")
    }

    fn avg_pool2d(&self, _: &Layout, _: (usize, usize), _: (usize, usize)) -> Result<Self> {
        unsupported("pooling")
    }

    fn max_pool2d(&self, _: &Layout, _: (usize, usize), _: (usize, usize)) -> Result<Self> {
        unsupported("pooling")
    }

    fn upsample_nearest1d(&self, _: &Layout, _: usize) -> Result<Self> {
        unsupported("upsampling")
    }

    fn upsample_nearest2d(&self, _: &Layout, _: usize, _: usize) -> Result<Self> {
        unsupported("upsampling")
    }

    fn upsample_bilinear2d(
        &self,
        _: &Layout,
        _: usize,
        _: usize,
        _: bool,
        _: Option<f64>,
        _: Option<f64>,
    ) -> Result<Self> {
        unsupported("upsampling")
    }
}

impl BackendDevice for CudaDevice {
    type Storage = CudaStorage;

    fn new(_: usize) -> Result<Self> {
        unsupported("a device with a stream for every thread")
    }

    fn set_seed(&self, _: u64) -> Result<()> {
        unsupported("a random generator")
    }

    fn get_current_seed(&self) -> Result<u64> {
        unsupported("a random generator")
    }

    fn location(&self) -> crate::DeviceLocation {
        crate::DeviceLocation::Cuda { gpu_id: self.0 .0 }
    }

    fn same_device(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn zeros_impl(&self, shape: &Shape, dtype: DType) -> Result<Self::Storage> {
        filled("zeros", shape.elem_count())?;
        Ok(self.with(CpuDevice.zeros_impl(shape, dtype)?))
    }

    unsafe fn alloc_uninit(&self, shape: &Shape, dtype: DType) -> Result<Self::Storage> {
        filled("an allocation", shape.elem_count())?;
        Ok(self.with(CpuDevice.alloc_uninit(shape, dtype)?))
    }

    fn storage_from_slice<T: crate::WithDType>(&self, values: &[T]) -> Result<Self::Storage> {
        filled("a copy to the device", values.len())?;
        Ok(self.with(CpuDevice.storage_from_slice(values)?))
    }

    fn storage_from_cpu_storage(&self, held: &CpuStorage) -> Result<Self::Storage> {
        self.storage_from_cpu_storage_owned(held.clone())
    }

    fn storage_from_cpu_storage_owned(&self, held: CpuStorage) -> Result<Self::Storage> {
        let numbers = match &held {
            CpuStorage::U8(list) => list.len(),
            CpuStorage::U32(list) => list.len(),
            CpuStorage::I64(list) => list.len(),
            CpuStorage::BF16(list) => list.len(),
            CpuStorage::F16(list) => list.len(),
            CpuStorage::F32(list) => list.len(),
            CpuStorage::F64(list) => list.len(),
            _ => return unsupported("a type of numbers"),
        };
        filled("a copy to the device", numbers)?;
        Ok(self.with(held))
    }

    fn rand_uniform(&self, _: &Shape, _: DType, _: f64, _: f64) -> Result<Self::Storage> {
        unsupported("a random generator")
    }

    fn rand_normal(&self, _: &Shape, _: DType, _: f64, _: f64) -> Result<Self::Storage> {
        unsupported("a random generator")
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}

pub fn gemm_reduced_precision_f16() -> bool {
    false
}

pub fn set_gemm_reduced_precision_f16(_: bool) {}

pub fn gemm_reduced_precision_bf16() -> bool {
    false
}

pub fn set_gemm_reduced_precision_bf16(_: bool) {}

pub fn gemm_reduced_precision_f32() -> bool {
    false
}

pub fn set_gemm_reduced_precision_f32(_: bool) {}
