//! The guide `docs/stories.md` shows code that there is.

#[test]
fn the_guide_shows_the_code_of_a_story() {
    let story = include_str!("../src/stories/claim_before_effect.rs");
    let guide = include_str!("../../docs/stories.md");
    let blocks = guide.split("```rust\n").skip(1);
    let blocks: Vec<_> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() > 3, "the guide has {} blocks of code", blocks.len());
    for block in blocks {
        assert!(story.contains(block), "this is in docs/stories.md only:\n{block}");
    }
}
