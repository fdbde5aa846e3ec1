//! The list of people, however many there are.

use crate::support::client::once_key;
use crate::support::people::Browser;
use crate::support::people::MEMBER;
use crate::support::people::OWNER;
use crate::support::people::People;

const PATH: &str = "/account/people";

/// So many are on a page.
const PAGE: usize = 50;

/// Adds so many members, and an owner whose address comes last.
async fn crowd(people: &People, count: u32) {
    let added = people.context.database.write(move |tx| {
        tx.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO users (email, email_key, role, created_at)
             SELECT format('P%05d@site.test', i), format('p%05d@site.test', i), 'member', 0 FROM n",
            [count],
        )?;
        tx.execute(
            "INSERT INTO users (email, email_key, role, created_at) VALUES ('zoe@site.test', 'zoe@site.test', 'owner', 0)",
            [],
        )?;
        Ok(())
    });
    added.await.unwrap();
}

/// Whom a page shows.
fn shown(page: &str) -> Vec<String> {
    let names = page.split("<strong>").skip(1);
    let name = |rest: &str| rest.split_once("</strong>").unwrap().0.to_owned();
    names.map(name).collect()
}

/// Where a link of a page leads to.
fn link(page: &str, rel: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("rel=\"{rel}\" href=\""))?;
    Some(rest.split_once('"').unwrap().0.to_owned())
}

/// The pages from `path` on, by the links of this kind.
async fn pages(owner: &mut Browser, path: &str, rel: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        assert!(pages.len() < 100, "they go round in circles");
        let page = owner.get(&path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        next = link(&page.body, rel);
        pages.push(shown(&page.body));
    }
    pages
}

#[tokio::test]
async fn everybody_is_on_one_of_the_pages_and_on_no_other() {
    let people = People::start().await;
    crowd(&people, 1_234).await;
    let mut owner = people.signed_in(OWNER).await;
    let forward = pages(&mut owner, PATH, "next").await;
    let all: Vec<String> = forward.concat();
    let mut expected = vec![
        OWNER.to_owned(),
        "zoe@site.test".to_owned(),
        MEMBER.to_owned(),
    ];
    expected.extend((1..=1_234).map(|i| format!("P{i:05}@site.test")));
    assert_eq!(all, expected);
    let (last, full) = forward.split_last().unwrap();
    assert!(full.iter().all(|page| page.len() == PAGE));
    assert_eq!(last.len(), 1_237 % PAGE);
    // The same way back, from the last page, whose own link says where it begins.
    let before = people.id(&last[0]).await;
    let mut backward = pages(&mut owner, &format!("{PATH}?before={before}"), "prev").await;
    backward.reverse();
    assert_eq!(backward, full);
}

#[tokio::test]
async fn few_people_have_one_page_without_links() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    // Two of them are there already, and one is an owner.
    crowd(&people, 47).await;
    for query in ["", "?after=999", "?before=999", "?before=1"] {
        let page = owner.get(&format!("{PATH}{query}")).await.body;
        assert_eq!(shown(&page).len(), PAGE, "{query}");
        let links = (link(&page, "prev"), link(&page, "next"));
        assert_eq!(links, (None, None), "{query}");
    }
}

#[tokio::test]
async fn who_is_disabled_leaves_the_page_where_it_is() {
    let people = People::start().await;
    crowd(&people, 120).await;
    let mut owner = people.signed_in(OWNER).await;
    let first = owner.get(PATH).await.body;
    let second = link(&first, "next").unwrap();
    let page = owner.get(&second).await.body;
    let id = people.id(&shown(&page)[3]).await;
    for (verb, back) in [("disable", "enable"), ("enable", "disable")] {
        let page = owner.get(&second).await.body;
        let query = second.strip_prefix(PATH).unwrap();
        let action = format!("{PATH}/{id}/{verb}{query}");
        assert!(page.contains(&format!("action=\"{action}\"")), "{page}");
        let answer = owner.post(&action, &[]).await;
        assert_eq!((answer.status, answer.location()), (303, &*second));
        let page = owner.get(&second).await.body;
        assert!(page.contains(&format!("{PATH}/{id}/{back}{query}")));
    }
}

#[tokio::test]
async fn an_invitation_that_is_sent_twice_is_one() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    let page = owner.get(PATH).await;
    assert_eq!(page.header("cache-control"), "no-store");
    let (_, rest) = page.body.split_once("name=\"_once\" value=\"").unwrap();
    let key = &rest[..32];
    let pairs = [("email", "new@site.test"), ("_once", key)];
    let first = owner.post(PATH, &pairs).await;
    let second = owner.post(PATH, &pairs).await;
    assert_eq!((first.status, second.status), (200, 200), "{}", second.body);
    assert_eq!(people.number("SELECT count(*) FROM users").await, 3);
    // The page that stays open is the second one, and its link is the one that is good.
    let mut browser = people.browser();
    assert_eq!(browser.get(&first.link()).await.status, 404);
    assert_eq!(browser.get(&second.link()).await.status, 200);
    let other = [("email", "other@site.test"), ("_once", key)];
    assert_eq!(owner.post(PATH, &other).await.status, 422);
    let none = owner.post(PATH, &other[..1]).await;
    assert_eq!(none.status, 428, "{}", none.body);
    // A mistake has a form with a key of its own.
    let taken = once_key();
    let pairs = [("email", MEMBER), ("_once", &*taken)];
    let answer = owner.post(PATH, &pairs).await;
    assert_eq!(answer.status, 422);
    assert!(answer.body.contains("has an account already"));
    assert!(!answer.body.contains(&taken), "{}", answer.body);
    assert_eq!(people.number("SELECT count(*) FROM users").await, 3);
}
