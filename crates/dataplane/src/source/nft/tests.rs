use super::*;

#[test]
fn a_table_is_named_after_its_node() {
    let node = NodeId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let Table(name) = Table::of(node);
    assert_eq!(name, format!("swarmd-{}", &node.to_string()[..12]));
    assert!(is_name(&name));
    for other in ["swarmd", "swarmd-", "swarmd-0123456789a", "swarmd-0123456789abc", "swarmd-0123456789a-", "filter"] {
        assert!(!is_name(other), "{other}");
    }
}
