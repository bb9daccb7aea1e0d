use super::{Variables, expand, split};

fn variables() -> Variables {
    Variables::from([
        ("NAME".to_owned(), "two words".to_owned()),
        ("EMPTY".to_owned(), String::new()),
    ])
}

#[test]
fn words_end_at_spaces_outside_quotes() {
    let words = split(r#"a="one two"  b='three four' c=five\ six"#, &variables()).unwrap();
    assert_eq!(words, ["a=one two", "b=three four", "c=five six"]);
}

#[test]
fn variables_are_replaced_except_in_single_quotes() {
    let text = r#"$NAME ${NAME} "$NAME" '$NAME' \$NAME "\$NAME" ${OTHER}"#;
    let words = split(text, &variables()).unwrap();
    assert_eq!(words, ["two words", "two words", "two words", "$NAME", "$NAME", "$NAME", ""]);
}

#[test]
fn a_default_stands_in_for_an_unset_or_empty_variable() {
    let text = "${EMPTY:-none} ${OTHER:-${NAME}} ${NAME:-none} ${NAME:+set} ${EMPTY:+set}x";
    let words = split(text, &variables()).unwrap();
    assert_eq!(words, ["none", "two words", "two words", "set", "x"]);
}

#[test]
fn what_is_not_understood_is_refused() {
    for text in ["\"open", "'open", "${NAME", "${NAME#t*}", "${NAME-x}", "$"] {
        assert!(split(text, &variables()).is_err(), "{text}");
    }
}

#[test]
fn spaces_stay_in_a_value_that_is_not_split() {
    assert_eq!(expand("a  ${NAME} b", &variables()).unwrap(), "a  two words b");
}
