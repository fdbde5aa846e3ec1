//! What the cache promises of keys and values, in each of its forms.

use std::collections::BTreeMap;
use std::fmt::Debug;

use houseboat::cache::Error;
use serde::Deserialize;
use serde::Serialize;
use serde::Serializer;
use serde::de::DeserializeOwned;

use crate::support::cache::MINUTE;
use crate::support::cache::NEVER;
use crate::support::cache::Stage;
use crate::support::cache::fetch;
use crate::support::cache::in_each_form;
use crate::support::cache::in_each_form_with;
use crate::support::cache::text;

#[tokio::test]
async fn a_missing_key_is_a_miss_however_it_is_asked_for() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        cache.put("there", &"v", NEVER).await.unwrap();
        stage.settle().await;
        let cache = stage.cache();
        assert_eq!(text(&cache, "missing").await, None);
        assert_eq!(cache.get::<Option<i32>>("missing").await, None);
        assert_eq!(cache.get::<()>("missing").await, None);
        assert!(!cache.contains("missing").await);
        assert!(!cache.touch("missing", MINUTE).await);
        assert_eq!(cache.get_many::<String>(&["missing"]).await, [None]);
        cache.delete("missing").await;
        assert_eq!(text(&cache, "there").await.as_deref(), Some("v"));
    })
    .await;
}

#[tokio::test]
async fn what_is_put_is_got_and_the_last_put_wins() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        for value in ["one", "a longer one", "", "4"] {
            cache.put("k", &value, MINUTE).await.unwrap();
            assert_eq!(text(&cache, "k").await.as_deref(), Some(value));
        }
        stage.settle().await;
        let cache = stage.cache();
        assert_eq!(text(&cache, "k").await.as_deref(), Some("4"));
        // Also of another type, and after it was in the file.
        cache.put("k", &vec![1, 2, 3], MINUTE).await.unwrap();
        stage.settle().await;
        let cache = stage.cache();
        assert_eq!(cache.get("k").await, Some(vec![1, 2, 3]));
        assert_eq!(text(&cache, "k").await, None);
    })
    .await;
}

#[tokio::test]
async fn a_deleted_entry_is_gone_and_no_other() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        for key in ["a", "b", "c"] {
            cache.put(key, &key, NEVER).await.unwrap();
        }
        cache.delete("a").await;
        assert_eq!(text(&cache, "a").await, None);
        stage.settle().await;
        let cache = stage.cache();
        cache.delete("b").await;
        stage.settle().await;
        let cache = stage.cache();
        for (key, is_there) in [("a", false), ("b", false), ("c", true)] {
            assert_eq!(text(&cache, key).await.is_some(), is_there, "{key}");
        }
        cache.put("a", &"again", NEVER).await.unwrap();
        stage.settle().await;
        assert_eq!(text(&stage.cache(), "a").await.as_deref(), Some("again"));
    })
    .await;
}

/// Puts a value, and gets it, and finds it wherever else it may be found.
async fn comes_back<T>(stage: &Stage, value: T)
where
    T: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    stage.cache().put("k", &value, MINUTE).await.unwrap();
    stage.settle().await;
    let cache = stage.cache();
    assert!(cache.contains("k").await, "{value:?}");
    assert_eq!(cache.get("k").await, Some(value.clone()));
    assert_eq!(
        cache
            .get_many("k".split(' ').collect::<Vec<_>>().as_slice())
            .await,
        [Some(value.clone())]
    );
    // It is there, so nothing is computed and nothing put.
    let (fetched, is_computed) = fetch(&cache, "k", MINUTE, value.clone()).await;
    assert_eq!(fetched, value);
    assert!(!is_computed, "{value:?}");
    assert!(
        !cache.put_if_absent("k", &value, MINUTE).await.unwrap(),
        "{value:?}"
    );
}

#[tokio::test]
async fn what_looks_like_nothing_is_a_value() {
    in_each_form(async |stage| {
        comes_back(stage, None::<i32>).await;
        comes_back(stage, ()).await;
        comes_back(stage, false).await;
        comes_back(stage, 0_i32).await;
        comes_back(stage, 0.0_f64).await;
        comes_back(stage, String::new()).await;
        comes_back(stage, Vec::<u8>::new()).await;
        comes_back(stage, BTreeMap::<String, i32>::new()).await;
        comes_back(stage, '\0').await;
    })
    .await;
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Shape {
    Point,
    Circle(f64),
    Line { from: (i32, i32), to: (i32, i32) },
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Drawing {
    name: String,
    shapes: Vec<Shape>,
    parent: Option<Box<Self>>,
    by_name: BTreeMap<String, u64>,
}

#[tokio::test]
async fn values_of_all_kinds_come_back_as_they_were() {
    let small = Drawing {
        name: "tiny".to_owned(),
        shapes: vec![Shape::Point],
        parent: None,
        by_name: BTreeMap::new(),
    };
    let drawing = Drawing {
        name: "\u{44f} \u{1f6f6} \"quoted\"\n".to_owned(),
        shapes: vec![
            Shape::Point,
            Shape::Circle(-0.1),
            Shape::Line {
                from: (i32::MIN, 0),
                to: (0, i32::MAX),
            },
        ],
        parent: Some(Box::new(small)),
        by_name: BTreeMap::from([("one".to_owned(), 1), (String::new(), u64::MAX)]),
    };
    in_each_form(async |stage| {
        comes_back(stage, true).await;
        comes_back(stage, "text".to_owned()).await;
        comes_back(stage, [i64::MIN, -1, 0, 1, i64::MAX]).await;
        comes_back(stage, [0, u64::MAX]).await;
        comes_back(stage, (f64::MIN_POSITIVE, f64::MAX, f64::NEG_INFINITY)).await;
        comes_back(stage, Some(Some(7))).await;
        comes_back(stage, Ok::<i32, String>(7)).await;
        comes_back(stage, (0..=u8::MAX).collect::<Vec<_>>()).await;
        comes_back(stage, vec![vec![1, 2], vec![], vec![3]]).await;
        comes_back(stage, '\u{1f6f6}').await;
        comes_back(stage, drawing.clone()).await;
    })
    .await;
}

/// Keys that are like one another, or like something else.
fn odd_keys() -> Vec<Vec<u8>> {
    let long = vec![b'l'; 1 << 20];
    let mut long_too = long.clone();
    *long_too.last_mut().unwrap() = b'm';
    let mut keys: Vec<Vec<u8>> = [
        "",
        " ",
        "  ",
        "a",
        "A",
        "a ",
        " a",
        "a\0",
        "a\0b",
        "\n",
        "a\nb",
        "a\r\nb",
        "a:b",
        "a/b",
        "a%b",
        "a_b",
        "a*",
        "'; DROP TABLE entries; --",
        "\"",
        "NULL",
        "0",
        "00",
        "1",
        "1.0",
        "\u{43a}\u{43b}\u{44e}\u{447}",
        "\u{1f6f6}",
        // One letter, written in two ways.
        "\u{e9}",
        "e\u{301}",
    ]
    .map(|key| key.as_bytes().to_vec())
    .into();
    keys.extend((0..=u8::MAX).map(|byte| vec![b'=', byte]));
    keys.extend([(0..=u8::MAX).collect(), vec![0xff, 0xfe], vec![0xc3, 0x28]]);
    // Beyond what is kept in a row, in a page, and with a difference at the end alone.
    keys.extend((0..10).flat_map(|power| [vec![b'x'; 16 << power], vec![b'x'; (16 << power) - 1]]));
    keys.extend([long[1..].to_vec(), long, long_too]);
    keys
}

#[tokio::test]
async fn any_bytes_are_a_key_and_no_two_are_the_same() {
    let keys = odd_keys();
    in_each_form(async |stage| {
        let cache = stage.cache();
        for (number, key) in keys.iter().enumerate() {
            cache.put(key, &number, NEVER).await.unwrap();
        }
        stage.settle().await;
        let cache = stage.cache();
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(
                cache.get(key).await,
                Some(number),
                "{:?}",
                &key[..key.len().min(20)]
            );
        }
        for key in keys.iter().step_by(2) {
            cache.delete(key).await;
        }
        stage.settle().await;
        let found = stage.cache().get_many::<usize>(&keys).await;
        for (number, found) in found.into_iter().enumerate() {
            assert_eq!(found, (number % 2 == 1).then_some(number));
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_is_its_bytes_whatever_its_type() {
    in_each_form(async |stage| {
        stage.cache().put("key", &7, NEVER).await.unwrap();
        stage.settle().await;
        let cache = stage.cache();
        assert_eq!(cache.get("key".to_owned()).await, Some(7));
        assert_eq!(cache.get(b"key").await, Some(7));
        assert_eq!(cache.get(b"key".to_vec()).await, Some(7));
        assert_eq!(cache.get(&[107, 101, 121]).await, Some(7));
    })
    .await;
}

/// A text whose encoding has this many bytes.
fn text_of(bytes: usize) -> String {
    // What `MessagePack` says before a text of this length.
    let head = if bytes > 3 + usize::from(u16::MAX) {
        5
    } else {
        3
    };
    "x".repeat(bytes - head)
}

#[tokio::test]
async fn a_value_at_the_bound_is_kept_and_one_over_it_is_refused() {
    in_each_form_with(
        |settings| settings.value_bytes_max = 2_000,
        async |stage| {
            let cache = stage.cache();
            cache.put("at", &text_of(2_000), NEVER).await.unwrap();
            let over = text_of(2_001);
            let error = cache.put("over", &over, NEVER).await.unwrap_err();
            assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
            let said = error.to_string();
            assert!(said.contains("2001") && said.contains("2000"), "{said}");
            let error = cache.put_if_absent("if", &over, NEVER).await.unwrap_err();
            assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
            let many = [("first", &over), ("second", &over)];
            let error = cache.put_many(many, NEVER).await.unwrap_err();
            assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
            stage.settle().await;
            let cache = stage.cache();
            assert_eq!(text(&cache, "at").await, Some(text_of(2_000)));
            for key in ["over", "if", "first", "second"] {
                assert!(!cache.contains(key).await, "{key}");
            }
            // Whoever fetches it has it, each time anew.
            for _ in 0..2 {
                let (value, is_computed) = fetch(&cache, "fetched", NEVER, over.clone()).await;
                assert!(is_computed && value == over);
            }
            assert!(!cache.contains("fetched").await);
        },
    )
    .await;
}

#[tokio::test]
async fn the_largest_values_of_the_default_settings_come_back() {
    in_each_form(async |stage| {
        let bytes_max = stage.settings.value_bytes_max;
        let value = text_of(bytes_max);
        stage.cache().put("large", &value, NEVER).await.unwrap();
        stage.settle().await;
        assert!(text(&stage.cache(), "large").await == Some(value));
        let over = text_of(bytes_max + 1);
        stage.cache().put("large", &over, NEVER).await.unwrap_err();
    })
    .await;
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Person {
    name: String,
    age: u32,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Added {
    name: String,
    age: u32,
    town: String,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct AddedWithDefault {
    name: String,
    age: u32,
    #[serde(default)]
    town: String,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Removed {
    name: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Renamed {
    name: String,
    years: u32,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Swapped {
    age: u32,
    name: String,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Retyped {
    name: String,
    age: String,
}

#[tokio::test]
async fn a_value_of_another_type_is_a_miss_and_never_garbage() {
    let ada = || Person {
        name: "Ada".to_owned(),
        age: 36,
    };
    in_each_form(async |stage| {
        stage.cache().put("k", &ada(), NEVER).await.unwrap();
        stage.settle().await;
        let cache = stage.cache();
        assert_eq!(cache.get::<Added>("k").await, None);
        assert_eq!(cache.get::<Renamed>("k").await, None);
        assert_eq!(cache.get::<Retyped>("k").await, None);
        assert_eq!(cache.get::<u64>("k").await, None);
        assert_eq!(cache.get::<String>("k").await, None);
        assert_eq!(cache.get::<Vec<u8>>("k").await, None);
        assert_eq!(cache.get_many::<Renamed>(&["k"]).await, [None]);
        // What can be read of it is: the names of the fields are there.
        let town = String::new();
        let name = "Ada".to_owned();
        let defaulted = cache.get::<AddedWithDefault>("k").await;
        assert_eq!(
            defaulted,
            Some(AddedWithDefault {
                name: name.clone(),
                age: 36,
                town
            })
        );
        assert_eq!(cache.get("k").await, Some(Removed { name: name.clone() }));
        assert_eq!(
            cache.get("k").await,
            Some(Swapped {
                age: 36,
                name: name.clone()
            })
        );
        // The program before this one may still be running: its value stays until a new one is put.
        assert_eq!(cache.get("k").await, Some(ada()));
        let renamed = Renamed { name, years: 36 };
        let (fetched, is_computed) = fetch(&cache, "k", NEVER, renamed.clone()).await;
        assert!(is_computed);
        assert_eq!(fetched, renamed);
        stage.settle().await;
        let cache = stage.cache();
        assert_eq!(cache.get("k").await, Some(renamed));
        assert_eq!(cache.get::<Person>("k").await, None);
    })
    .await;
}

#[tokio::test]
async fn numbers_are_read_where_they_fit() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        cache.put("small", &7_u8, NEVER).await.unwrap();
        cache.put("large", &u64::MAX, NEVER).await.unwrap();
        cache.put("negative", &-1, NEVER).await.unwrap();
        stage.settle().await;
        let cache = stage.cache();
        assert_eq!(cache.get("small").await, Some(7_i64));
        assert_eq!(cache.get::<u32>("large").await, None);
        assert_eq!(cache.get::<i64>("large").await, None);
        assert_eq!(cache.get::<u64>("negative").await, None);
        assert_eq!(cache.get::<bool>("small").await, None);
    })
    .await;
}

/// It has no encoding.
struct Unspeakable;

impl Serialize for Unspeakable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("on purpose"))
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_encoded_is_refused() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        let error = cache.put("k", &Unspeakable, NEVER).await.unwrap_err();
        assert!(matches!(error, Error::Encode { .. }), "{error:?}");
        assert!(error.to_string().contains("on purpose"), "{error}");
        let error = cache
            .put_if_absent("k", &Unspeakable, NEVER)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Encode { .. }), "{error:?}");
        assert!(!cache.contains("k").await);
        assert!(cache.put_if_absent("k", &7, NEVER).await.unwrap());
    })
    .await;
}
