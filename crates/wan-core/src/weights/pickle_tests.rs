use super::*;

/// `{"w": tensor of shape [2, 3] at storage "0"}` as protocol 2 writes it.
pub(crate) const STATE: &[u8] = b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02\
    ((X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuK\x06tQ\
    K\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRs.";

#[test]
fn a_state_dict_is_read() {
    let tensors = state_dict(STATE).unwrap();
    let tensor =
        PickledTensor { storage: "0", dtype: DType::F32, offset: 0, shape: vec![2, 3], stride: vec![3, 1] };
    assert_eq!(tensors, [("w", tensor)]);
}

#[test]
fn every_cut_is_an_error() {
    for n in 0..STATE.len() {
        assert!(state_dict(&STATE[..n]).is_err(), "{n}");
    }
}

#[test]
fn code_is_refused_by_name() {
    let error = |bytes: &[u8]| state_dict(bytes).unwrap_err();
    let system = error(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.");
    assert!(system.contains("`posix.system`") && system.contains("not run"), "{system}");
    let stacked = error(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.");
    assert!(stacked.contains("`builtins.eval`"), "{stacked}");
    let instance = error(b"(S'true'\nios\nsystem\n.");
    assert!(instance.contains("opcode 0x53"), "{instance}");
    assert!(error(b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.").contains("not run"));
}

#[test]
fn deep_nesting_costs_no_stack() {
    let mut bytes = b"\x80\x02)".to_vec();
    bytes.resize(1 << 20, 0x85);
    bytes.push(b'.');
    assert!(state_dict(&bytes).unwrap_err().contains("not a dict"));
}

#[test]
fn a_nested_state_dict_is_found_and_a_loop_ends() {
    let mut nested = b"\x80\x02}X\x0b\x00\x00\x00model_state".to_vec();
    nested.extend(&STATE[2..STATE.len() - 1]);
    nested.extend(b"s.");
    assert_eq!(state_dict(&nested).unwrap().len(), 1);
    let own = b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.";
    assert!(state_dict(own).unwrap_err().contains("without end"));
}

/// Pushes the function that makes tensors, and its arguments: a storage called `key`, and `axes` axes.
fn tensor_call(key: &str, axes: usize) -> Vec<u8> {
    let mut bytes =
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX".to_vec();
    bytes.extend((key.len() as u32).to_le_bytes());
    bytes.extend(key.as_bytes());
    bytes.extend(b"X\x03\x00\x00\x00cpuK\x01tQK\x00");
    for _ in 0..2 {
        bytes.push(b'(');
        bytes.extend(b"K\x01".repeat(axes));
        bytes.push(b't');
    }
    bytes.push(b't');
    bytes
}

#[test]
fn axes_are_few() {
    let state = |axes| [b"\x80\x02}X\x01\x00\x00\x00w", &tensor_call("0", axes)[..], b"Rs."].concat();
    assert_eq!(state_dict(&state(8)).unwrap()[0].1.shape, [1; 8]);
    assert!(state_dict(&state(9)).unwrap_err().contains("9 axes, expected at most 8"));
}

#[test]
fn what_is_recalled_is_not_copied() {
    let key = "k".repeat(1 << 20);
    // Memo 0 and 1 are the function and its arguments, called 100,000 times: 100 GB, were the key copied.
    let call = [&tensor_call(&key, 1)[..], b"q\x010q\x000"].concat();
    let bytes = [b"\x80\x02", &call[..], &b"h\x00h\x01R0".repeat(100_000), b"}."].concat();
    assert!(state_dict(&bytes).unwrap().is_empty());
    let twice =
        [b"\x80\x02}X\x01\x00\x00\x00wq\x03", &tensor_call("0", 1)[..], b"Rq\x02sh\x03h\x02s."].concat();
    assert!(state_dict(&twice).unwrap_err().contains("tensor w twice"));
}

#[test]
fn opcodes_are_bounded() {
    let mut bytes = b"\x80\x02}".to_vec();
    bytes.resize(bytes.len() + MAX_OPCODES - 3, 0x94);
    assert!(state_dict(&[&bytes[..], b"."].concat()).is_ok());
    assert!(state_dict(&[&bytes[..], b"\x94."].concat()).unwrap_err().contains("opcodes"));
}
