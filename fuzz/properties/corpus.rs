/// The inputs of a target that were kept: before each stands its length, in a line of its own (`fuzz/corpus.py`).
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let all = std::fs::read(&path).unwrap();
    let (mut inputs, mut rest) = (Vec::new(), &all[..]);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let length: usize = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
        let start = end + 1;
        inputs.push(rest[start..start + length].to_vec());
        // The last byte ends the line, so that a person can read it.
        rest = &rest[start + length + 1..];
    }
    assert!(inputs.len() >= 50, "{path} has {}", inputs.len());
    inputs
}
