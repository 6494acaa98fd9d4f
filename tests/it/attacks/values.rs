//! Secrets of every shape arrive byte for byte in every way.

use crate::harness::Sandbox;

/// What is odd about a value, and the value.
fn values() -> Vec<(&'static str, Vec<u8>)> {
    let largest: Vec<u8> = (0..=u8::MAX).cycle().skip(1).take(65_535).chain([b'.']).collect();
    vec![
        ("one", b"x".to_vec()),
        ("blanks", b" \t both ends \t ".to_vec()),
        ("lines", b"first\nsecond\r\n\n  fourth\nlast".to_vec()),
        ("ending", b"kept\n".to_vec()),
        ("shell", br#"$(touch ~/ran) `touch ~/ran` "quo'ted\" %s * ? ~ ; & | < > \n"#.to_vec()),
        ("binary", b"\x01\x7f\x80\xff\xfe \x1b[31m \xc3\x28".to_vec()),
        ("zeros", b"\0in the\0middle\0".to_vec()),
        ("equals", b"A=B=C".to_vec()),
        ("marker", b"[secret vault] {} %n".to_vec()),
        ("text", "großes Kürbisöl \u{1f512}".into()),
        ("largest", largest),
    ]
}

#[test]
fn secrets_of_every_shape_come_byte_for_byte_in_every_way() {
    let sandbox = Sandbox::new();
    let (mut secrets, mut tasks) = (String::new(), String::new());
    for (name, value) in values() {
        // One line ending belongs to the file and not to the secret.
        sandbox.write(&format!("secrets/{name}"), [&value[..], b"\n"].concat());
        secrets.push_str(&format!("  - {{name: {name}, file: ~/secrets/{name}}}\n"));
        let (variable, print) = match value.contains(&0) {
            true => (String::new(), ":".to_owned()),
            false => (
                format!(", V: {{secret: {name}, as: value}}, T: {{secret: {name}, as: value, template: '<{{}}>'}}"),
                format!("printf %s \"$V\" > {name}.value; printf %s \"$T\" > {name}.template"),
            ),
        };
        tasks.push_str(&format!(
            r#"
  - name: {name}
    schedule: "@start"
    output: discard
    environment: {{F: {{secret: {name}, as: file}}, W: {{secret: {name}, as: file, template: "<{{}}>"}}, C: {{secret: {name}, as: command}}{variable}}}
    stdin: {{secret: {name}}}
    command: [sh, -c, 'cat > {name}.stdin; cat "$F" > {name}.file; cat "$W" > {name}.wrapped; eval "$C" > {name}.command; {print}']
"#
        ));
    }
    let daemon = sandbox.daemon(&format!("secrets:\n{secrets}tasks:{tasks}"));
    for (name, value) in values() {
        assert!(daemon.wait_for_end(name).contains("outcome=success"), "{}", daemon.log());
        let wrapped = [b"<", &value[..], b">"].concat();
        let plain = !value.contains(&0);
        for (way, expected) in [("stdin", &value), ("file", &value), ("command", &value), ("wrapped", &wrapped)]
            .into_iter()
            .chain([("value", &value), ("template", &wrapped)].into_iter().filter(|_| plain))
        {
            assert!(sandbox.read_bytes(&format!("{name}.{way}")) == *expected, "{name} by {way}");
        }
    }
    assert!(!sandbox.path("ran").exists(), "a secret was run");
}

#[test]
fn an_empty_secret_is_none() {
    for text in ["", "\n", "\r\n"] {
        let sandbox = Sandbox::new();
        sandbox.write("vault", text);
        sandbox.config("secrets: [{name: vault, file: ~/vault}]\ntasks: [{name: t, schedule: '@start', environment: {V: {secret: vault, as: value}}, command: [touch, ran]}]\n");
        let said = crate::harness::finish(sandbox.backupnizza(["backup.yaml"])).expect(1);
        assert!(said.stderr.contains("/vault is empty"), "{}", said.stderr);
        assert!(!sandbox.path("ran").exists());
    }
}
