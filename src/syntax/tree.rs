//! The tree of a file after imports: lines, each with words and perhaps a block of further lines.

use crate::base::span::Span;

use super::token::Token;

/// One logical line: `name args… [{ block }]`.
#[derive(Clone, Debug)]
pub struct Node {
    /// First word: the directive, subdirective, option or matcher name.
    pub name: Token,
    pub args: Vec<Token>,
    pub block: Option<Block>,
}

#[derive(Clone, Debug)]
pub struct Block {
    /// Place of `{`.
    pub open: Span,
    /// Place of `}`.
    pub close: Span,
    pub nodes: Vec<Node>,
}

impl Node {
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.text()
    }

    /// The place of the whole line without its block.
    #[must_use]
    pub fn span(&self) -> Span {
        self.args.iter().fold(self.name.span, |s, t| s.to(t.span))
    }

    /// The lines of the block; none when there is no block.
    pub fn lines(&self) -> impl Iterator<Item = &Node> {
        self.block.iter().flat_map(|b| b.nodes.iter())
    }
}

/// A site block: its address words and its lines.
#[derive(Clone, Debug)]
pub struct SiteBlock {
    pub keys: Vec<Token>,
    pub nodes: Vec<Node>,
    /// False for the single site of a file without braces.
    pub braces: bool,
}

/// `&(name) { … }`.
#[derive(Clone, Debug)]
pub struct NamedRoute {
    /// The name token, text without `&(` and `)`.
    pub name: Token,
    pub nodes: Vec<Node>,
}

/// A whole file with its imports expanded.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// The global options block.
    pub globals: Option<Vec<Node>>,
    pub named_routes: Vec<NamedRoute>,
    pub sites: Vec<SiteBlock>,
}
