//! Tests of `dense.rs`.

use super::*;
use crate::container::ByteOrder;

#[test]
fn what_was_never_written_is_the_fill_value() {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let element = ElementType::Integer { bytes: 2, signed: false, order };
        let band = Band { rows: vec![0..1, 4..6], base: 0, chunks: vec![(None, 0..0)] };
        let fill = 0x0102u16.to_le_bytes().to_vec();
        for (fill, want) in [(fill, 0x0102u16), (Vec::new(), 0)] {
            let element = element.clone();
            let shared = Shared { element, fill, kind: Kind::Contiguous(None) };
            let dense = shared.dense(&band, &[], 2).unwrap();
            let (_, _, values) = to_csr::<u16>(&dense, 2).unwrap();
            let n = if want == 0 { 0 } else { 6 };
            assert_eq!(values.to_f64_vec(), vec![f64::from(want); n], "{order:?}");
        }
    }
}
