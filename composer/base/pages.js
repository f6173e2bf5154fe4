"use strict";
// What pages share. Names are text nodes only: nothing that comes from a file is ever parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);

function make(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function picture(webp, alt, className) {
  const img = make("img", className);
  img.decoding = "async";
  show(img, webp, alt);
  return img;
}

function show(img, webp, alt) {
  img.src = "data:image/webp;base64," + webp;
  img.alt = alt;
}
