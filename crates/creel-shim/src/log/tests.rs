use std::path::Path;

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use split::PIECE;

const NO_LIMITS: Limits = Limits { max_size: None, max_files: 1 };

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + nanoseconds / 1_000_000_000, (nanoseconds % 1_000_000_000) as i32).unwrap()
}

fn encoded(text: &[u8]) -> String {
    let mut out = Vec::new();
    encode_line(&mut out, "stdout", text, time(120_000_000));
    String::from_utf8(out).unwrap()
}

/// The texts of a log file's lines, each line checked to be a JSON document.
fn texts(path: &Path) -> Vec<(String, String, String)> {
    let content = std::fs::read_to_string(path).unwrap();
    assert!(content.is_empty() || content.ends_with('\n'));
    content
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| value[name].as_str().unwrap().to_owned();
            (field("log"), field("stream"), field("time"))
        })
        .collect()
}

#[test]
fn a_line_looks_as_docker_writes_it() {
    expect![[r#"
        {"log":"a\"b\\c\u0009\u001b\u003c\u003e\u0026\r\n","stream":"stdout","time":"2023-11-14T22:13:20.12Z"}
    "#]]
    .assert_eq(&encoded(b"a\"b\\c\t\x1b<>&\r\n"));
    expect![[r#"
        {"log":"é\u2028\u2029\ufffd\ufffdz\ufffd","stream":"stdout","time":"2023-11-14T22:13:20.12Z"}
    "#]]
    .assert_eq(&encoded("é\u{2028}\u{2029}".bytes().chain(*b"\xe2\x82z\xff").collect::<Vec<_>>().as_slice()));
}

proptest! {
    #[test]
    fn any_text_is_one_json_line_and_reads_back(text in ".{0,200}") {
        let line = encoded(text.as_bytes());
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(value["log"].as_str(), Some(text.as_str()));
    }

    #[test]
    fn any_bytes_are_one_json_line(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let line = encoded(&bytes);
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        if let Ok(text) = std::str::from_utf8(&bytes) {
            prop_assert_eq!(value["log"].as_str(), Some(text));
        }
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_are_cut(
        lines in prop::collection::vec((0usize..40_000, any::<bool>(), any::<u8>()), 1..6),
        cuts in prop::collection::vec(1usize..20_000, 1..10),
    ) {
        let mut bytes = Vec::new();
        for (length, wide, fill) in lines {
            let unit: &[u8] = if wide { "€".as_bytes() } else { std::slice::from_ref(&fill) };
            bytes.extend(unit.iter().cycle().take(length));
            bytes.push(b'\n');
        }
        bytes.pop();
        let split = |cuts: &[usize]| {
            let (mut splitter, mut got) = (Splitter::default(), Vec::new());
            let (mut rest, mut cut) = (bytes.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(rest.len().min(*cut.next().unwrap()));
                splitter.push(head, time(0), |line, _| got.push(line.to_vec()));
                rest = tail;
            }
            splitter.finish(time(0), |line, _| got.push(line.to_vec()));
            got
        };
        let got = split(&cuts);
        prop_assert_eq!(&got, &split(&[bytes.len().max(1)]));
        prop_assert_eq!(got.concat(), bytes);
        for line in got {
            let content = line.strip_suffix(b"\n").unwrap_or(&line);
            prop_assert!(content.len() <= PIECE && !content.contains(&b'\n'));
        }
    }
}

#[test]
fn long_lines_come_in_pieces_of_16_kib_with_one_time() {
    let mut splitter = Splitter::default();
    let mut got = Vec::new();
    let mut text = vec![b'x'; 2 * PIECE];
    splitter.push(&text, time(1), |line, at| got.push((line.len(), line.ends_with(b"\n"), at)));
    splitter.push(b"yy\nz\n", time(2), |line, at| got.push((line.len(), line.ends_with(b"\n"), at)));
    assert_eq!(
        got,
        [(PIECE, false, time(1)), (PIECE, false, time(1)), (3, true, time(1)), (2, true, time(2))]
    );
    // 16383 bytes and a newline are one line; 16384 are a piece and an empty line.
    text.truncate(PIECE - 1);
    text.push(b'\n');
    got.clear();
    splitter.push(&text, time(3), |line, at| got.push((line.len(), line.ends_with(b"\n"), at)));
    assert_eq!(got, [(PIECE, true, time(3))]);
    text.insert(0, b'x');
    got.clear();
    splitter.push(&text, time(4), |line, at| got.push((line.len(), line.ends_with(b"\n"), at)));
    assert_eq!(got, [(PIECE, false, time(4)), (1, true, time(4))]);
}

#[test]
fn a_piece_does_not_break_a_character() {
    let mut splitter = Splitter::default();
    let text = format!("{}€€\n", "x".repeat(PIECE - 1));
    let mut got = Vec::new();
    splitter.push(text.as_bytes(), time(0), |line, _| got.push(String::from_utf8(line.to_vec()).unwrap()));
    assert_eq!(got, ["x".repeat(PIECE - 1), "€€\n".to_owned()]);
}

#[test]
fn the_file_holds_both_streams_and_the_last_line_without_newline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut logger = Logger::new(LogFile::new(path.clone(), NO_LIMITS));
    logger.write(Stream::Stdout, b"one\ntw", time(0));
    logger.write(Stream::Stderr, b"err\n", time(0));
    logger.write(Stream::Stdout, b"o\nend", time(5));
    logger.finish(time(6));
    let got: Vec<_> = texts(&path).into_iter().map(|(log, stream, _)| (log, stream)).collect();
    let want = [("one\n", "stdout"), ("err\n", "stderr"), ("two\n", "stdout"), ("end", "stdout")];
    assert_eq!(got, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn rotation_keeps_so_many_files_and_loses_nothing_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut logger = Logger::new(LogFile::new(path.clone(), Limits { max_size: Some(1000), max_files: 3 }));
    for number in 0..100 {
        logger.write(Stream::Stdout, format!("line {number}\n").as_bytes(), time(0));
    }
    logger.finish(time(0));
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["log", "log.1", "log.2"]);
    let mut all = Vec::new();
    for name in ["log.2", "log.1", "log"] {
        let file = dir.path().join(name);
        let size = std::fs::metadata(&file).unwrap().len();
        assert!(size < 1100, "{name} has {size} bytes");
        all.extend(texts(&file).into_iter().map(|(log, ..)| log));
    }
    assert!(all.len() > 20);
    let want: Vec<_> = (100 - all.len()..100).map(|number| format!("line {number}\n")).collect();
    assert_eq!(all, want);
}

#[test]
fn one_file_is_truncated_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut logger = Logger::new(LogFile::new(path.clone(), Limits { max_size: Some(500), max_files: 1 }));
    for number in 0..100 {
        logger.write(Stream::Stdout, format!("line {number}\n").as_bytes(), time(0));
    }
    assert_eq!(texts(&path).last().unwrap().0, "line 99\n");
    assert!(std::fs::metadata(&path).unwrap().len() < 600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn half_a_line_of_a_killed_writer_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, format!("{}{{\"log\":\"torn", encoded(b"whole\n"))).unwrap();
    let mut logger = Logger::new(LogFile::new(path.clone(), NO_LIMITS));
    logger.write(Stream::Stdout, b"next\n", time(0));
    let got: Vec<_> = texts(&path).into_iter().map(|(log, ..)| log).collect();
    assert_eq!(got, ["whole\n", "next\n"]);
}

#[test]
fn a_log_that_cannot_be_written_waits_counts_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").join("log");
    let mut logger = Logger::new(LogFile::new(path.clone(), NO_LIMITS));
    for number in 0..2000 {
        logger.write(Stream::Stdout, format!("line {number}\n").as_bytes(), time(0));
    }
    assert!(logger.file().is_waiting());
    let lost = logger.file().lost_lines();
    assert!(lost > 0 && lost < 2000);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    logger.write(Stream::Stdout, b"again\n", time(0));
    logger.write(Stream::Stdout, b"and on\n", time(0));
    let got = texts(&path);
    assert_eq!(got[0].0, "line 0\n");
    assert_eq!(got.last().unwrap().0, "and on\n");
    let notes = logger.file().take_notes();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[1].contains("lines were lost"), "{notes:?}");
}
