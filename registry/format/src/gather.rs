//! A tensor's values out of parts of its file, which may come in any order and end anywhere.
//!
//! **Invariant:** only indices whose values lie in the part, and are asked for, are walked through: gathering from all
//! parts of a file is work in proportion to the values and the parts, not to their product.

use std::ops::Range;

use crate::weights::{Tensor, TensorLayout};

/// A dimension of a tensor's bytes; the innermost one is bytes that lie in one piece.
#[derive(Debug, Clone, Copy)]
struct Dim {
    n: u64,
    /// Bytes in the file from one index to the next.
    stride: u64,
    /// The same in the row-major values.
    step: u64,
}

/// Puts what `part`, the bytes of the file from `at` on, has of a tensor's values where it belongs in `values`, which
/// are the tensor's row-major bytes from `first` on.
pub fn fill(values: &mut [u8], first: u64, tensor: &Tensor, part: &[u8], at: u64) {
    let (begin, dims) = dims(tensor);
    let mut filling = Filling {
        wanted: first..first + values.len() as u64,
        values,
        given: at..at + part.len() as u64,
        part,
    };
    if tensor.size_bytes() > 0 {
        filling.walk(&dims, begin, 0);
    }
}

/// From where to where in the file the given row-major bytes of a tensor lie, with what lies between them.
pub fn extent(tensor: &Tensor, wanted: Range<u64>) -> Range<u64> {
    let (mut begin, dims) = dims(tensor);
    let (mut dims, mut wanted) = (&dims[..], wanted);
    while let [dim, inner @ ..] = dims {
        if wanted.is_empty() {
            break;
        }
        let (low, last) = (wanted.start / dim.step, (wanted.end - 1) / dim.step);
        begin += low * dim.stride;
        if low < last || inner.is_empty() {
            return begin..begin + (last - low) * dim.stride + reach(inner);
        }
        wanted = wanted.start - low * dim.step..wanted.end - low * dim.step;
        dims = inner;
    }
    begin..begin
}

/// Where a tensor's first byte lies in its file, and its dimensions, outermost first: the fewest that say the same.
fn dims(tensor: &Tensor) -> (u64, Vec<Dim>) {
    let bytes = |n| Dim { n, stride: 1, step: 1 };
    let (offset, strides) = match &tensor.layout {
        TensorLayout::Contiguous { offset, size_bytes } => return (*offset, vec![bytes(*size_bytes)]),
        TensorLayout::Strided { offset, strides, .. } => (*offset, strides),
    };
    let width = tensor.dtype.size_bytes();
    let mut dims = vec![bytes(width)];
    let mut step = width;
    for (&n, &stride) in tensor.shape.iter().zip(strides).rev() {
        if n == 1 {
            // Its stride says nothing, and may be anything.
            continue;
        }
        let stride = stride.saturating_mul(width);
        let inner = dims.last_mut().expect("one at least");
        if stride == inner.n.saturating_mul(inner.stride) {
            inner.n *= n;
        } else {
            dims.push(Dim { n, stride, step });
        }
        // The readers have checked that the product of the shape does not overflow.
        step *= n;
    }
    dims.reverse();
    (offset, dims)
}

/// Bytes from the first to the end of the last one of these dimensions.
fn reach(dims: &[Dim]) -> u64 {
    dims.iter().map(|dim| (dim.n - 1) * dim.stride).sum::<u64>() + 1
}

struct Filling<'a> {
    values: &'a mut [u8],
    wanted: Range<u64>,
    part: &'a [u8],
    given: Range<u64>,
}

impl Filling<'_> {
    /// Fills what these dimensions have; their first byte lies at `from` in the file and at `to` in the tensor's
    /// values.
    fn walk(&mut self, dims: &[Dim], from: u64, to: u64) {
        let Some((dim, inner)) = dims.split_first() else { return };
        let low = self.wanted.start.saturating_sub(to) / dim.step;
        let high = self.wanted.end.saturating_sub(to).div_ceil(dim.step).min(dim.n);
        let (low, high) = match (dim.stride, reach(inner)) {
            (0, reach) if from + reach <= self.given.start || from >= self.given.end => return,
            (0, _) => (low, high),
            (stride, reach) => {
                let before = (self.given.start + 1).saturating_sub(from + reach).div_ceil(stride);
                let behind = self.given.end.saturating_sub(from).div_ceil(stride);
                (low.max(before), high.min(behind))
            }
        };
        if inner.is_empty() {
            self.copy(from, to, low..high);
            return;
        }
        for i in low..high {
            self.walk(inner, from + i * dim.stride, to + i * dim.step);
        }
    }

    fn copy(&mut self, from: u64, to: u64, bytes: Range<u64>) {
        if bytes.is_empty() {
            return;
        }
        let place = |at: u64| usize::try_from(at).expect("inside of what is in memory");
        let (source, target) = (
            place(from + bytes.start - self.given.start),
            place(to + bytes.start - self.wanted.start),
        );
        let n = place(bytes.end - bytes.start);
        self.values[target..target + n].copy_from_slice(&self.part[source..source + n]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Dtype;

    /// A view of a storage that begins at 3, and the bytes of its file.
    fn view(shape: &[u64], strides: &[u64], dtype: Dtype) -> (Tensor, Vec<u8>) {
        let width = dtype.size_bytes();
        let last: u64 = shape.iter().zip(strides).map(|(n, stride)| (n - 1) * stride).sum();
        let size_bytes = (last + 1) * width;
        let tensor = Tensor {
            name: "w".to_owned(),
            dtype,
            shape: shape.to_vec(),
            layout: TensorLayout::Strided {
                offset: 3,
                size_bytes,
                strides: strides.to_vec(),
            },
        };
        let file = (0..3 + size_bytes + 2).map(|i| (i * 7 + i / 256) as u8).collect();
        (tensor, file)
    }

    /// What a view is by its definition, index by index.
    fn defined(shape: &[u64], strides: &[u64], width: u64, file: &[u8]) -> Vec<u8> {
        let mut elements = vec![0];
        for (&n, &stride) in shape.iter().zip(strides) {
            elements = elements
                .iter()
                .flat_map(|at| (0..n).map(move |i| at + i * stride))
                .collect();
        }
        let bytes = elements
            .iter()
            .flat_map(|at| (0..width).map(move |i| 3 + at * width + i));
        bytes.map(|at| file[at as usize]).collect()
    }

    proptest! {
        #[test]
        fn parts_of_any_size_give_a_views_values(
            dims in prop::collection::vec((1_u64..5, 0_u64..9), 0..4),
            dtype in prop::sample::select(vec![Dtype::U8, Dtype::Bf16, Dtype::F32, Dtype::I64]),
            part_bytes in 1_usize..40,
            block_bytes in 1_u64..40,
        ) {
            let (shape, strides): (Vec<_>, Vec<_>) = dims.into_iter().unzip();
            let (tensor, file) = view(&shape, &strides, dtype);
            let expected = defined(&shape, &strides, dtype.size_bytes(), &file);
            let mut values = Vec::new();
            while (values.len() as u64) < tensor.size_bytes() {
                let first = values.len() as u64;
                let end = tensor.size_bytes().min(first + block_bytes);
                let extent = extent(&tensor, first..end);
                let mut block = vec![0; (end - first) as usize];
                for (i, part) in file.chunks(part_bytes).enumerate() {
                    let at = (i * part_bytes) as u64;
                    // What lies outside of the extent is not needed.
                    if at < extent.end && at + part.len() as u64 > extent.start {
                        fill(&mut block, first, &tensor, part, at);
                    }
                }
                values.extend(block);
            }
            prop_assert_eq!(values, expected);
        }
    }

    #[test]
    fn the_extent_of_some_rows_is_theirs() {
        // Two columns of four in rows of three elements of two bytes.
        let (tensor, _) = view(&[4, 2], &[3, 1], Dtype::Bf16);
        assert_eq!(extent(&tensor, 0..16), 3..3 + 22);
        assert_eq!(extent(&tensor, 4..8), 9..13);
        assert_eq!(extent(&tensor, 5..7), 10..12);
        assert_eq!(extent(&tensor, 5..9), 9..19);
        assert_eq!(extent(&tensor, 4..4), 3..3);
    }

    #[test]
    fn a_part_beside_a_view_changes_nothing() {
        let (tensor, file) = view(&[2, 2], &[0, 3], Dtype::U8);
        let mut values = [9; 4];
        fill(&mut values, 0, &tensor, &file[..3], 0);
        fill(&mut values, 0, &tensor, &file[7..], 7);
        assert_eq!(values, [9; 4]);
        fill(&mut values, 0, &tensor, &file[3..4], 3);
        assert_eq!(values, [file[3], 9, file[3], 9]);
    }
}
