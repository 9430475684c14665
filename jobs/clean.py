"""spark-submit jobs/clean.py --env ENV --run-date YYYY-MM-DD"""

from recsys_spark.night import main

if __name__ == "__main__":
    main("clean")
