use proptest::prelude::*;

use super::*;

#[test]
fn a_message_is_read_as_it_was_written() {
    let inner = [attribute(1, &[7]), text(2, "abc")];
    let message = Message::new(32, 0, &[9; 4]).with(&nested(5, &inner)).with(&attribute(6, &[1, 2, 3, 4, 5]));
    let mut bytes = Vec::new();
    message.write(3, 0, &mut bytes);
    message.write(4, 0, &mut bytes);
    let heard: Vec<_> = messages(&bytes).collect();
    assert_eq!(heard.iter().map(|heard| (heard.kind, heard.number)).collect::<Vec<_>>(), [(32, 3), (32, 4)]);
    let body = heard[1].body.get(4..).unwrap();
    assert_eq!((find_in(body, &[5, 1]), find_in(body, &[5, 2])), (Some(&[7][..]), Some(&b"abc\0"[..])));
    assert_eq!((find_in(body, &[5, 3]), find(body, 6)), (None, Some(&[1, 2, 3, 4, 5][..])));
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0_u8..80) {
        let mut bytes = bytes;
        // Lengths that are near the truth lead further into the reader.
        for at in [0, 16, 36] {
            if let Some(target) = bytes.get_mut(at..at + 4) {
                target.copy_from_slice(&[len, 0, 0, 0]);
            }
        }
        for heard in messages(&bytes) {
            let _ = heard.outcome();
            for (kind, value) in attributes(heard.body) {
                prop_assert!(kind < 0x4000 && value.len() <= bytes.len());
                prop_assert!(attributes(value).count() <= bytes.len());
            }
        }
    }
}
