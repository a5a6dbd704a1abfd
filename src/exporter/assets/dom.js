// Builds and updates elements. Names are only ever text: no function here parses markup.

/**
 * Creates an element. Attributes that are `null` or `false` are left out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean | null>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) created.setAttribute(name, value === true ? "" : String(value));
  }
  created.append(...children);
  return created;
}

/**
 * Sets the text of an element, unless it has it: a selection in it, and the layout, stay as they are.
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Sets text in which code is between backticks, as in "`orders` holds connections".
 * @param {Element} node
 * @param {string} text
 */
export function setProse(node, text) {
  if (node.getAttribute("data-text") === text) return;
  node.setAttribute("data-text", text);
  node.replaceChildren(...text.split("`").map((part, at) => (at % 2 === 1 ? element("code", {}, part) : part)));
}

/** The same text without the backticks. @param {string} text */
export function prose(text) {
  return text.replaceAll("`", "");
}

/**
 * @param {Element} node
 * @param {string} name
 * @param {string | null} value
 */
export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/**
 * Makes `parent` have `length` children, of which new ones are created.
 * @param {Element} parent
 * @param {number} length
 * @param {() => Element} create
 */
export function resize(parent, length, create) {
  while (parent.childElementCount > length) parent.lastElementChild?.remove();
  while (parent.childElementCount < length) parent.append(create());
}

/**
 * Returns the element with this ID, which the page has.
 * @param {string} id
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found;
}
