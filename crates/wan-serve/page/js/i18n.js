// The page's words in English and Chinese.

import { keep, recall } from "./store.js";

const WORDS = {
  en: {
    skip: "Skip to the form", access: "Access", workflow: "Workflow", image: "Image", choose: "Choose an image",
    drop_hint: "or drop it here, or paste it", existing: "On the server", none: "none",
    positive: "What should happen",
    positive_hint: "Describe the motion in whole sentences; stay with what the image shows.",
    demo: "This is the demo model: it understands only sentences about coloured shapes, such as “the red circle moves right”.",
    negative: "What should not appear", size: "Size and length", presets: "Sizes", width: "Width", height: "Height",
    frames: "Frames", sampling: "Sampling", steps: "Steps", steps_hint: "20 to 30; 10 for a draft",
    cfg: "Guidance (CFG)", cfg_hint: "6 to 8; more follows the text closer", shift: "Shift", shift_hint: "5 at 480p",
    sampler: "Sampler", scheduler: "Scheduler", denoise: "Denoise",
    denoise_hint: "Leave at 1: the video starts from noise, less only degrades it",
    seed: "Seed", dice: "Roll a new seed", new_seed: "New one for each run", run: "Make the video", now: "Now",
    idle: "Nothing is running. The video will appear here.",
    busy: "The video will appear here, and a preview with the first steps.",
    busy_elsewhere: "A job that was started elsewhere is running. What it makes will appear here.", cancel: "Cancel", queue: "Waiting", history: "History",
    history_empty: "Finished videos are kept here.", access_title: "Address and token", close: "Close",
    server: "Server", token: "Token", model: "Model", copy: "Copy", copied: "Copied", selected: "Selected", show: "Show", hide: "Hide",
    access_note: "Programs send the token as the header Authorization: Bearer TOKEN. Everyone who has it shares this queue.",
    no_token: "none: this server is open to everyone who can reach it", download: "Download",
    again: "Use settings again", remove: "Remove",
    remove_sure: "Remove this from the history? The files stay in the server's output folder.", login: "Open",
    login_text: "This server asks for its token. It was printed in the terminal when the server started.",
    login_wrong: "This is not the server's token.", language: "中文", theme: "Light or dark",
    connected: "connected", lost: "connection lost, trying again",
    size_is: "The video will be {w} × {h}, {s} {s|second|seconds} at {fps} {fps|frame|frames} a second.",
    size_kept: "The video will be {w} × {h}: the image's shape at the area you asked for; {s} {s|second|seconds} at {fps} {fps|frame|frames} a second.",
    frames_are: "Frames come as 4k + 1: {n} will be made.",
    waiting: "Waiting, {n} before it", starting: "Preparing", reading_text: "Reading the prompts",
    reading_image: "Reading the image", sampling: "Sampling", step: "Step {n} of {total}",
    decoding: "Decoding and writing", elsewhere: "Running (started elsewhere)",
    left: "about {t} left", done: "Done", cancelled: "Cancelled", failed: "The video could not be made.",
    too_narrow: "The image is {w} × {h}: too narrow for a video. Choose another one.",
    need_image: "Choose an image first.", out_of_range: "{what}: {min} to {max}", at_least: "{what}: at least {min}",
    not_a_number: "{what}: a number, please", not_whole: "{what}: a whole number, please",
    not_a_seed: "{what}: a whole number from 0 to {max}", not_image: "This is not an image the server can read.",
    uploading: "Uploading", no_workflows: "The server lists no workflow.", play: "Play: {what}", running: "running",
    no_caption: "No prompt", cancel_waiting: "Take out of the queue",
    transparent: "The image has transparent parts, which a video cannot have: it is made from what you see here.",
    image_gone: "{name} is not on the server any more. Choose the image anew.",
    file_too_large: "The file has {size} MiB, which is more than the server takes. Save the image smaller, for example as JPEG.",
    unreachable: "The server does not answer. Is it still running?",
    not_workflow: "{name} is not a workflow.", earlier: "that of an earlier job",
    unknown_nodes: "This workflow has nodes that wan-run does not know: {list}",
    steps_are: "{n} {n|step|steps}", pictures: "{n} {n|picture|pictures}", files: "{n} {n|file|files}",
    first_of: "First of {n} files, which the history has", job_before: "The job before this one: {what}",
  },
  zh: {
    skip: "跳到表单", access: "访问", workflow: "工作流", image: "图片", choose: "选择图片",
    drop_hint: "或拖到这里，也可直接粘贴", existing: "服务器上的图片", none: "无", positive: "希望发生什么",
    positive_hint: "用完整的句子描述动作，并与图片内容保持一致。",
    demo: "这是演示模型：它只懂关于彩色图形的句子，例如“红色圆形向右移动”。", negative: "不希望出现什么", size: "尺寸与长度",
    presets: "常用尺寸", width: "宽", height: "高", frames: "帧数", sampling: "采样", steps: "步数",
    steps_hint: "20 到 30；草稿 10 步", cfg: "引导强度 (CFG)", cfg_hint: "6 到 8；越大越贴近文字", shift: "Shift",
    shift_hint: "480p 用 5", sampler: "采样器", scheduler: "调度器", denoise: "去噪强度",
    denoise_hint: "请保持 1：视频从噪声开始生成，更小只会降低质量", seed: "随机种子", dice: "换一个种子",
    new_seed: "每次运行都换", run: "生成视频", now: "当前任务", idle: "没有正在运行的任务，视频会显示在这里。",
    busy: "视频会显示在这里；开始采样后先显示预览。", busy_elsewhere: "正在运行从别处提交的任务，结果会显示在这里。",
    cancel: "取消", queue: "排队中", history: "历史记录", history_empty: "完成的视频保存在这里。",
    access_title: "地址与令牌", close: "关闭", server: "服务器", token: "令牌", model: "模型", copy: "复制",
    copied: "已复制", selected: "已选中", show: "显示", hide: "隐藏",
    access_note: "程序在请求头 Authorization: Bearer 令牌 中发送令牌。持有令牌的人共用同一个队列。",
    no_token: "无：能连到此服务器的人都可使用", download: "下载", again: "再次使用这些设置", remove: "移除",
    remove_sure: "从历史记录中移除？文件会保留在服务器的输出文件夹中。",
    login: "进入", login_text: "此服务器需要令牌。服务器启动时已在终端中显示。", login_wrong: "令牌不正确。",
    language: "English", theme: "浅色或深色", connected: "已连接", lost: "连接中断，正在重试",
    size_is: "视频尺寸为 {w} × {h}，每秒 {fps} 帧，共 {s} 秒。",
    size_kept: "视频尺寸为 {w} × {h}：保持图片的宽高比，面积与所设相同；每秒 {fps} 帧，共 {s} 秒。",
    frames_are: "帧数须为 4k + 1：将生成 {n} 帧。", waiting: "排队中，前面还有 {n} 个", starting: "准备中",
    reading_text: "读取提示词", reading_image: "读取图片", sampling: "采样中", elsewhere: "运行中（从别处提交）",
    step: "第 {n} 步，共 {total} 步", decoding: "解码并写入", left: "大约还需 {t}", done: "完成", cancelled: "已取消",
    failed: "视频未能生成。",
    too_narrow: "图片为 {w} × {h}，过于细长，无法生成视频。请换一张图片。", need_image: "请先选择图片。", out_of_range: "{what}：{min} 到 {max}",
    at_least: "{what}：至少 {min}", not_a_number: "{what}：请输入数字", not_whole: "{what}：请输入整数",
    not_a_seed: "{what}：请输入 0 到 {max} 的整数", not_image: "服务器无法读取这张图片。",
    uploading: "正在上传", no_workflows: "服务器没有列出任何工作流。", play: "播放：{what}", running: "运行中",
    no_caption: "没有提示词", cancel_waiting: "从队列中移除",
    transparent: "图片有透明部分，而视频不能透明：将按此处所见生成。", image_gone: "服务器上已没有 {name}，请重新选择图片。",
    file_too_large: "文件有 {size} MiB，超过服务器的上限。请把图片存得小一些，例如存为 JPEG。",
    unreachable: "服务器没有回应。它还在运行吗？", not_workflow: "{name} 不是工作流。", earlier: "历史任务的工作流",
    unknown_nodes: "此工作流包含 wan-run 不支持的节点：{list}", steps_are: "{n} 步", pictures: "{n} 张图片", files: "{n} 个文件",
    first_of: "{n} 个文件中的第一个，全部见历史记录", job_before: "上一个任务：{what}",
  },
};

const KEY = "wan-run.language";
let language = recall(KEY) ?? (navigator.language.startsWith("zh") ? "zh" : "en");

/** The words for `key`: `{name}` is replaced by the value, `{name|one|many}` by the word for its number. */
export function t(key, values = {}) {
  const text = WORDS[language][key] ?? WORDS.en[key] ?? key;
  return text.replace(/\{(\w+)(?:\|(\w+)\|(\w+))?\}/g, (whole, name, one, many) => {
    if (one) return Number(values[name]) === 1 ? one : many;
    return values[name] ?? whole;
  });
}

/** Puts the words into everything under `root` that names its key. */
export function translate(root = document) {
  if (root === document) document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of root.querySelectorAll("[data-i18n]")) element.textContent = t(element.dataset.i18n);
  for (const element of root.querySelectorAll("[data-i18n-label]")) element.ariaLabel = t(element.dataset.i18nLabel);
  for (const element of root.querySelectorAll("[data-i18n-title]")) {
    element.title = t(element.dataset.i18nTitle);
    element.ariaLabel = element.title;
  }
}

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  keep(KEY, language);
  translate();
}
