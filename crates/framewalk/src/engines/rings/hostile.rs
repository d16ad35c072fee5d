//! What has to hold for whatever bytes are alleged to be a ring's. Tests and fuzz targets ask the same.

use super::record::{Record, is_sample, read, split};

/// The bytes of a ring: records follow each other, and none says more than it holds.
pub(crate) fn ring(bytes: &[u8]) {
    let mut at = 0;
    for (_, range) in split(bytes) {
        assert!(range.start == at && range.len() >= 8 && range.end <= bytes.len());
        at = range.end;
        let record = &bytes[range];
        let Some(read) = read(record) else { continue };
        assert_eq!(matches!(read, Record::Sample(_)), is_sample(record));
        match read {
            Record::Sample(sample) => {
                assert!(8 * sample.kernel.len() + sample.stack.len() <= record.len());
            }
            Record::Map { map, .. } => {
                assert!(map.start <= map.end && map.path.len() <= record.len());
                assert!(!map.path.contains(&0));
            }
            Record::Comm { comm, .. } => assert!(!comm.contains(&0)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_kind_and_length() {
        for kind in 0..16u32 {
            for filling in [0u8, 1, 0x7f, 0x80, 0xff] {
                for length in 8..300u16 {
                    let mut record = vec![filling; length.into()];
                    record[..4].copy_from_slice(&kind.to_ne_bytes());
                    record[6..8].copy_from_slice(&length.to_ne_bytes());
                    ring(&record);
                }
            }
        }
    }
}
