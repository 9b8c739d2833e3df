import { arithmeticTask } from "./number.ts";

export const addSub = arithmeticTask({ name: "AddSub", title: "AddSub" });
