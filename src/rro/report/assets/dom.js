"use strict";
// Elements, numbers and colours. All text becomes text nodes or attributes: nothing from a run is
// parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `attributes` may hold "on..." functions; children are elements, texts, or null. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for an SVG element. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== ""),
  );
  return element;
}

/** A number for reading, with at most 3 decimals; "?" where it is missing. */
function number(value, digits = 3) {
  return value === null || value === undefined
    ? "?"
    : value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** A number with its sign, for what is read as more or less than nothing. */
function signed(value, digits = 2) {
  return (value > 0 ? "+" : "") + number(value, digits).replace("-", "−");
}

/** A mean with its interval, or alone where there is none: too few tasks. */
function interval(value) {
  if (value.low === null) return number(value.mean);
  return `${number(value.mean)} [${number(value.low)}, ${number(value.high)}]`;
}

function percent(part, whole) {
  return whole ? `${Math.round((100 * part) / whole)} %` : "?";
}

function seconds(value) {
  return value < 120
    ? `${number(value, 0)} s`
    : value < 7200
      ? `${number(value / 60, 0)} min`
      : `${number(value / 3600, 1)} h`;
}

function plural(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

// The colour map cividis (Nuñez, Anderton and Renslow 2018) at nine even steps: readable with any
// colour vision.
const CIVIDIS = [
  "#00224e",
  "#1a386f",
  "#434e6c",
  "#61656f",
  "#7d7c78",
  "#9b9476",
  "#bcae6c",
  "#dec958",
  "#fee838",
].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));

/** Background and readable foreground for a reward within `range`. */
function colours(value, [low, high]) {
  const place = Math.min(Math.max((value - low) / (high - low || 1), 0), 1) * (CIVIDIS.length - 1);
  const under = Math.min(Math.floor(place), CIVIDIS.length - 2);
  const mixed = CIVIDIS[under].map((part, i) =>
    Math.round(part + (CIVIDIS[under + 1][i] - part) * (place - under)),
  );
  const [red, green, blue] = mixed.map((part) =>
    part <= 10 ? part / 3294 : ((part / 255 + 0.055) / 1.055) ** 2.4,
  );
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return { background: `rgb(${mixed.join(" ")})`, foreground: luminance > 0.18 ? "#000" : "#fff" };
}

/** A reward on a background of its colour. */
function chip(estimate, range, digits = 2) {
  const text = estimate === null || estimate === undefined ? "–" : estimate.toFixed(digits);
  const shown = el("span", { class: "chip" }, text);
  if (text !== "–") {
    const { background, foreground } = colours(estimate, range);
    shown.style.background = background;
    shown.style.color = foreground;
  }
  return shown;
}
