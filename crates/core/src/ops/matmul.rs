//! The one way to candle's matrix product, for `plain` bodies and for attribution. CUDA's takes operands that are contiguous
//! or exactly transposed, the CPU's any: here both take the same, so that every test on a CPU tests the strides as well.

use crate::error::{PrismError, Result};
use candle_core::{DType, Tensor};

/// Rows of a weight that are widened together where it is held in a smaller type.
const WIDENED_ROWS: usize = 8192;

/// `a b`, for every index of the leading axes; the smaller type of the two is widened to the other.
///
/// # Shapes
/// a […, m, k], b […, k, n] → […, m, n]; the last two axes contiguous, or the transpose of what is.
///
/// # Errors
/// `INTERNAL` where shapes do not fit, or for other strides.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check_strides(a)?;
    check_strides(b)?;
    Ok(match (a.dtype(), b.dtype()) {
        (of_a, of_b) if of_a == of_b => a.matmul(b)?,
        (of_a, of_b) if of_a.size_in_bytes() > of_b.size_in_bytes() => a.matmul(&b.to_dtype(of_a)?)?,
        (_, of_b) => a.to_dtype(of_b)?.matmul(b)?,
    })
}

/// `x Wᵀ`: the dot product of every row of `x` with every row of `W`. A weight of a smaller type is widened, which is
/// exact, some rows at a time.
///
/// # Shapes
/// x [rows, in], weight [out, in] → [rows, out].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub(super) fn by_rows(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let n_out = weight.dim(0)?;
    if weight.dtype() == x.dtype() || n_out <= WIDENED_ROWS {
        return matmul(x, &weight.to_dtype(x.dtype())?.t()?);
    }
    let block = |start: usize| {
        let rows = weight.narrow(0, start, WIDENED_ROWS.min(n_out - start))?.to_dtype(x.dtype())?;
        matmul(x, &rows.t()?)
    };
    let blocks = (0..n_out).step_by(WIDENED_ROWS).map(block).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&blocks, 1)?)
}

/// `x W` as a GPU multiplies with a weight of a smaller type: x and the product are rounded to that type, sums are f32.
///
/// # Shapes
/// x [rows, in] in f32, weight [in, out] → [rows, out] in f32.
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub(super) fn narrow_product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let x = x.to_dtype(weight.dtype())?;
    let product = match weight.device().is_cpu() {
        false => matmul(&x, weight)?,
        // the CPU has no product of these types: the same rounding around one of f32
        true => matmul(&x.to_dtype(DType::F32)?, weight)?.to_dtype(weight.dtype())?,
    };
    Ok(product.to_dtype(DType::F32)?)
}

/// What CUDA's product asks of an operand's strides, with candle's own exceptions for axes of length 1.
fn check_strides(t: &Tensor) -> Result<()> {
    let (dims, strides) = (t.dims(), t.stride());
    let refused = || PrismError::Internal {
        place: "a matrix product".into(),
        problem: format!("strides {strides:?} of shape {dims:?} are neither contiguous nor transposed"),
    };
    let ([leading @ .., rows, columns], [steps @ .., by_row, by_column]) = (dims, strides) else {
        return Err(refused());
    };
    let contiguous = (*by_column == 1 || *columns == 1) && (by_row == columns || *rows == 1);
    let transposed = (by_column == rows || *columns == 1) && (*by_row == 1 || *rows == 1);
    let batched = match (leading, steps) {
        ([], _) | ([_], _) => true,
        ([n, m], [outer, inner]) => *outer == inner * m || *n == 1 || *m == 1,
        _ => false,
    };
    if (contiguous || transposed) && batched { Ok(()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, device, matrix, test_device, values};

    test_device!(strides_that_cuda_takes_and_others);
    fn strides_that_cuda_takes_and_others() {
        let (a, b) = (matrix(&[3, 4], 1), matrix(&[4, 5], 2));
        let expected = values(&a.matmul(&b).unwrap());
        let transposed = |t: &Tensor| t.t().unwrap().contiguous().unwrap().t().unwrap();
        for (a, b) in [(a.clone(), b.clone()), (transposed(&a), b.clone()), (a.clone(), transposed(&b))] {
            close(&matmul(&a, &b).unwrap(), &expected, 1e-6);
        }
        let wide = matrix(&[3, 9], 3);
        let column = wide.narrow(1, 2, 4).unwrap(); // rows lie apart
        assert_eq!(matmul(&column, &b).unwrap_err().code(), "INTERNAL");
        assert_eq!(matmul(&b.t().unwrap(), &column.t().unwrap()).unwrap_err().code(), "INTERNAL");
        assert!(matmul(&column.narrow(0, 1, 1).unwrap(), &b).is_ok(), "one row has no distance");
        assert_eq!(matmul(&matrix(&[4], 1), &b).unwrap_err().code(), "INTERNAL");
    }

    test_device!(batches_lie_evenly_apart);
    fn batches_lie_evenly_apart() {
        let a = matrix(&[6, 2, 4, 5], 1);
        let b = matrix(&[6, 2, 5, 3], 2);
        assert!(matmul(&a, &b).is_ok());
        let (some_a, some_b) = (a.narrow(1, 0, 1).unwrap(), b.narrow(1, 0, 1).unwrap());
        assert!(matmul(&some_a, &some_b).is_ok(), "one of the inner axis");
        let swapped = a.transpose(0, 1).unwrap();
        assert_eq!(matmul(&swapped, &b.transpose(0, 1).unwrap()).unwrap_err().code(), "INTERNAL");
    }

    test_device!(a_smaller_type_is_widened_exactly);
    fn a_smaller_type_is_widened_exactly() {
        let x = matrix(&[3, 4], 1);
        for dtype in [DType::BF16, DType::F16] {
            let weight = matrix(&[WIDENED_ROWS + 7, 4], 2).to_dtype(dtype).unwrap();
            let wide = weight.to_dtype(DType::F32).unwrap();
            close(&by_rows(&x, &weight).unwrap(), &values(&x.matmul(&wide.t().unwrap()).unwrap()), 1e-6);
            let w = weight.narrow(0, 0, 5).unwrap().t().unwrap();
            let expected = values(&x.matmul(&w.to_dtype(DType::F32).unwrap()).unwrap());
            close(&matmul(&x, &w).unwrap(), &expected, 1e-6);
            let turned = matmul(&w.t().unwrap(), &x.t().unwrap()).unwrap();
            close(&turned.t().unwrap(), &expected, 1e-6);
        }
    }

    // by hand, in bf16, whose numbers have eight digits: 1 + 2⁻⁸ becomes 1, and 257 becomes 256
    test_device!(a_narrow_product_rounds_what_goes_in_and_what_comes_out);
    fn a_narrow_product_rounds_what_goes_in_and_what_comes_out() {
        let x = Tensor::new(&[[1f32 + 1.0 / 256.0, 256.0]], &device()).unwrap();
        let w = Tensor::new(&[[1f32], [1.0]], &device()).unwrap().to_dtype(DType::BF16).unwrap();
        assert_eq!(values(&narrow_product(&x, &w).unwrap()), [256.0]);
        let w = Tensor::new(&[[3f32], [1.0]], &device()).unwrap().to_dtype(DType::BF16).unwrap();
        assert_eq!(values(&narrow_product(&x, &w).unwrap()), [260.0]); // 259 lies between 258 and 260, which is even
    }
}
