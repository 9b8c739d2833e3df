import { arithmeticTask } from "./number.ts";

export const multiArith = arithmeticTask({ name: "MultiArith", title: "MultiArith" });
